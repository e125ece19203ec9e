"""Busywork: a week of a company whose agents mostly work and sometimes pretend to. `python -m bench.busywork`.

company.py   who works there, on which repositories, with which agents
wording.py   what people write to agents, each idea in several wordings; and a second set, held out
bodies.py    conversations as request bodies in four dialects, with the oddities of real agents
made.py      one made call, and the session that makes them
honest.py    people and their agents at work
jobs.py      honest machines: nightly jobs, batches, evaluations, polling
gamed.py     what pretends to be work
week.py      all of it, in the order of time, from one seed
judge.py     what the rules of a policy make of each call
table.py     what became of the week
send.py      a copied task and a loop for a running proxy

The week knows nothing of how repeats are found: it is written from how agents behave and how measures are gamed.
"""
