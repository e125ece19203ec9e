-- reserve: registers the hold of a call that is about to run, with the draft of its record.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 settled:<call_id>
-- ARGV  1 call_id   2 draft (JSON)   3 life of the hold in ms
-- Reply 1 held; 0 the call is settled already, so nothing is held. Error REBUILDING without an epoch.
--
-- The life is counted by the clock of the store, so that no host's clock can let a hold expire early. Everything that
-- can say no comes before the first write: a reserve takes all or nothing.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

-- A command that was stuck in a broken connection may arrive after the settle that was sent over the next one. A
-- marker that begins with 0 is the sweeper's: that call was given up as lost, but it runs, so it may hold again.
local marker = redis.call('GET', KEYS[4])
if marker and string.sub(marker, 1, 2) ~= '0:' then
  return 0
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + ARGV[3]), ARGV[1])
return 1
