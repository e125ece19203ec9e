-- sweep: gives up calls whose holds have expired: each becomes a record with result `lost`, revision 1.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 records   5... settled:<call_id>, one for each call
-- ARGV  1 ms to remember a lost call   then for each call: call_id, record (JSON; empty: leave no record)
-- Reply how many records were written. Error REBUILDING without an epoch.
--
-- A hold that was renewed since expired.lua saw it is left alone. A call that has a marker is settled or lost already:
-- only its stray hold goes. The marker `0:1` lets a settle that comes after all write revision 2.

local epoch = redis.call('GET', KEYS[1])
if not epoch then
  return redis.error_reply('REBUILDING no epoch')
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local written = 0
for i = 5, #KEYS do
  local call_id = ARGV[2 * (i - 4)]
  local record = ARGV[2 * (i - 4) + 1]
  local expires_ms = redis.call('ZSCORE', KEYS[2], call_id)
  if expires_ms and tonumber(expires_ms) <= now_ms then
    if record ~= '' and redis.call('EXISTS', KEYS[i]) == 0 then
      redis.call('XADD', KEYS[4], '*', 'e', epoch, 'v', '1', 'r', record)
      redis.call('SET', KEYS[i], '0:1', 'PX', ARGV[1])
      written = written + 1
    end
    redis.call('ZREM', KEYS[2], call_id)
    redis.call('HDEL', KEYS[3], call_id)
  end
end
return written
