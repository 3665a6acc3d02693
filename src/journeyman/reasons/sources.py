"""Why a row of a log is rejected, and what was not kept of a row that was read."""
