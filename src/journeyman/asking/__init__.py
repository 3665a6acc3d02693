"""START HERE. Asks a teacher anew for rows of the log that have no usable answer: `journeyman ask-again`.

kinds.py     which findings of curate are worth asking again, and under which names the user chooses them
choosing.py  the rows of a finished dataset that are asked, and how many are left out and why
limits.py    the limit of each answer, and what all answers will cost
teacher.py   the endpoint, whose refusal of one row does not end the work
ledger.py    a line for each answer, written when it arrives, so that no question is put twice
rows.py      an answer as a row of a log, which ingest reads as any other

What leaves the machine: the prompts of the chosen rows as ingest stored them, so with placeholders in place of secrets
and personal data, and the definitions of their tools. Answers are redacted before they are written.
"""
