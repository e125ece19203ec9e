-- extend: holds more for a running call that outgrows its hold: of all its counters, or of none.
--
-- KEYS  1 epoch   2 drafts   then for each take that grows: held, spent
-- ARGV  1 call_id   2 the takes as text, as they are   3 and as they will be   4 draft (JSON), as it will be
--       then for each take that grows: limit (empty: never refuses), step, and of a rolling window sub-bucket and
--       length in ms (else 0)
-- Reply MORE: it holds more. Nothing was done: FULL, the place of the first take that does not fit, its spent and held;
--       TAKES, the takes as text (empty: there is no hold): the hold is another than we think. Error REBUILDING without
--       an epoch.
--
-- The window is that of the admission, also when it is over: the call is charged there. A rolling one moves on.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('REBUILDING no epoch')
end

local holding = redis.call('HGET', KEYS[2], ARGV[1] .. ':takes') or ''
if holding ~= ARGV[2] then
  return {'TAKES', holding}
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

for key = 3, #KEYS, 2 do
  local at = 5 + 2 * (key - 3)
  if ARGV[at] ~= '' then
    local held, spent, bucket_ms = redis.call('GET', KEYS[key]), 0, tonumber(ARGV[at + 2])
    if bucket_ms == 0 then
      spent = redis.call('GET', KEYS[key + 1])
    else
      local oldest_ms = now_ms - now_ms % bucket_ms + bucket_ms - ARGV[at + 3]
      local fields = redis.call('HGETALL', KEYS[key + 1])
      for i = 1, #fields, 2 do
        local start_ms = tonumber(fields[i])
        if start_ms and start_ms >= oldest_ms then
          spent = spent + fields[i + 1]
        end
      end
    end
    spent, held = spent or 0, held or 0
    if spent + held + ARGV[at + 1] > tonumber(ARGV[at]) then
      return {'FULL', string.format('%.0f', (key - 3) / 2), string.format('%.0f', spent), string.format('%.0f', held)}
    end
  end
end

redis.call('HSET', KEYS[2], ARGV[1], ARGV[4], ARGV[1] .. ':takes', ARGV[3])
for key = 3, #KEYS, 2 do
  redis.call('INCRBY', KEYS[key], ARGV[6 + 2 * (key - 3)])
end
return {'MORE'}
