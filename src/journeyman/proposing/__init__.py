"""Proposes a config file from a bounded sample of the logs.

    proposal = propose(folder, ["../logs"])
    print(proposal.toml)

survey.py summarizes the sample; fields.py, checks.py and lengths.py each propose one part of the config, with the
numbers behind it; toml.py writes the file.
"""
