"""The commit protocol under a deterministic scheduler: the engine's own code, with time, network and ledger ours.

scheduler.py     processes and threads of which one runs at a time, and a clock that only the scheduler moves
stand_ins.py     `threading`, `time` and futures as the engine's modules see them while a history runs
destination.py   what a platform does with a request that reaches it
network.py       what becomes of a request under way: lost, late, repeated, unanswered
connection.py    a ledger whose commits fail, before or after
witness.py       who sees everything, and says what must never be
history.py       one history: a script from a seed, played and healed
mutants.py       the protocol with one rule taken out
"""
