-- expired: the calls whose holds have expired, the longest expired first.
--
-- KEYS  1 epoch   2 holds   3 drafts
-- ARGV  1 how many at most
-- Reply for each: call_id, draft, takes as text (empty where they are missing). Error REBUILDING without an epoch.
--
-- It changes nothing: the sweeper makes the records of lost calls from the drafts and hands them to settle.lua.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local reply = {}
for _, call_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now_ms), 'LIMIT', 0, ARGV[1])) do
  local found = redis.call('HMGET', KEYS[3], call_id, call_id .. ':takes')
  reply[#reply + 1] = call_id
  reply[#reply + 1] = found[1] or ''
  reply[#reply + 1] = found[2] or ''
end
return reply
