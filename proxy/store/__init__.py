"""The store room: Valkey or Redis. Holds of running calls, the stream of records, and the spool for when it is away.

embedded       finds, starts, adopts, restarts and stops the embedded server
address        a store's URL, read once
connection     one connection: commands in order, replies in order, one write per tick of the loop, a watchdog
client         a connection that comes back by itself, and the scripts
keyspace       the name of every key
script         the Lua scripts, one file each in `scripts/`
calls          CallStore: what a worker does with its calls (reserve, settle, release)
owed, spool    what the store could not take yet, and the files it waits in
later          who made the calls whose cost comes later (background answers, batches)
epoch          tells an emptied or older store from the one we knew
ledger_stream  the streams of records, as the bookkeeper reads them
sweeper        expired holds become records of lost calls
identity       which ledger and which secret belong to a store
"""
