"""Why a check passes, fails or cannot score an answer."""
