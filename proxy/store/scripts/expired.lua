-- expired: the calls whose holds have expired, the longest expired first.
--
-- KEYS  1 epoch   2 holds   3 drafts
-- ARGV  1 how many at most
-- Reply call_id, draft, call_id, draft, ... (an empty draft where it is missing). Error REBUILDING without an epoch.
--
-- It changes nothing: the sweeper makes the records of lost calls from the drafts and hands them to sweep.lua.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local reply = {}
for _, call_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, ARGV[1])) do
  reply[#reply + 1] = call_id
  reply[#reply + 1] = redis.call('HGET', KEYS[3], call_id) or ''
end
return reply
