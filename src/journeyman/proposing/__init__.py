"""From logs to a config: what a bounded sample of them shows, and the journeyman.toml that follows from it.

    proposal = propose(folder, ["../logs"])
    print(proposal.toml)

survey.py counts what the sample holds; fields.py, checks.py and lengths.py each propose one part of the config, with
the numbers that led to it; toml.py writes it down.
"""
