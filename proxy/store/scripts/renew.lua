-- renew: lengthens the holds of calls that still run.
--
-- KEYS  1 epoch   2 holds
-- ARGV  1 life of a hold in ms   2... call_ids
-- Reply the call_ids that have no hold any more; the worker registers those again, with their drafts.
--       Error REBUILDING without an epoch.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expires_ms = string.format('%.0f', now_ms + ARGV[1])

local gone = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('ZADD', KEYS[2], 'XX', expires_ms, ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
