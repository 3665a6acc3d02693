"""Why a role is deployed or not, and what to try next."""
