-- reserve: takes what a call is about to use of its counters and registers its hold: all in one step, or nothing.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 settled:<call_id>   then for each take of each candidate: held, spent
-- ARGV  1 call_id   2 draft (JSON)   3 life of the hold in ms   4 `1` where the call runs already: its takes are
--       registered whatever the limits and windows say   then for each candidate: how many takes, the takes as text,
--       and for each take: limit (empty: never refuses), amount, from when and until when it may be admitted (until 0:
--       always), when the counter expires (0: never), and of a rolling window sub-bucket and length in ms (else 0)
-- Reply ADMITTED, now, choice, then spent and held of each take before the call;  REFUSED, now, spent and held of each
--       take of candidate 0;  WINDOW, now: the clock is outside a window;  HELD, now, takes as text: the call has its
--       hold already;  SETTLED, now: the call is settled, nothing is held. Error REBUILDING without an epoch.
--
-- Time is that of the store, so that no host's clock can let a hold expire early or count in another window. Everything
-- that can say no comes before the first write. Amounts are text wherever they leave Lua: a Lua number keeps integers
-- up to 2^53 and prints them in full with %.0f alone. Sums beyond that are inexact but above every limit.

local seen = redis.call('MGET', KEYS[1], KEYS[4])
if not seen[1] then
  return redis.error_reply('REBUILDING no epoch')
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = string.format('%.0f', now_ms)

-- A command that was stuck in a broken connection may arrive after the settle that was sent over the next one. A
-- marker that begins with 0 is the sweeper's: that call was given up as lost, but it runs, so it may hold again.
if seen[2] and string.sub(seen[2], 1, 2) ~= '0:' then
  return {'SETTLED', now}
end
local holding = redis.call('HGET', KEYS[3], ARGV[1] .. ':takes')
if holding then
  return {'HELD', now, holding}
end

-- The spend of a rolling window. Its hash keeps each sub-bucket by its start, and the sum of those that count since
-- `from`: it is worked out anew when the window moves on, and what no window needs any more goes.
local function rolling_spent(at, bucket_ms, length_ms)
  local oldest_ms = now_ms - now_ms % bucket_ms + bucket_ms - length_ms
  local oldest = string.format('%.0f', oldest_ms)
  local cached = redis.call('HMGET', KEYS[at], 'from', 'sum')
  if cached[1] == oldest then
    return cached[2]
  end
  local fields, sum = redis.call('HGETALL', KEYS[at]), 0
  if #fields == 0 then
    return '0'
  end
  for i = 1, #fields, 2 do
    local start_ms = tonumber(fields[i])
    if start_ms and start_ms >= oldest_ms then
      sum = sum + fields[i + 1]
    elseif start_ms and start_ms < oldest_ms - bucket_ms then
      redis.call('HDEL', KEYS[at], fields[i])
    end
  end
  sum = string.format('%.0f', sum)
  redis.call('HSET', KEYS[at], 'from', oldest, 'sum', sum)
  return sum
end

local must = ARGV[4] == '1'
local refused
local choice, key, argument = 0, 5, 5
while argument <= #ARGV do
  local count, takes, first = tonumber(ARGV[argument]), ARGV[argument + 1], argument + 2
  local reply = {'ADMITTED', now, string.format('%.0f', choice)}
  local held = {}
  local fits = true
  if count > 0 then
    local values = redis.call('MGET', unpack(KEYS, key, key + 2 * count - 1))
    for i = 1, count do
      local at = first + 7 * (i - 1)
      if not must and ARGV[at + 3] ~= '0' and (now_ms < tonumber(ARGV[at + 2]) or now_ms >= tonumber(ARGV[at + 3])) then
        return {'WINDOW', now}
      end
      local spent = values[2 * i] or '0'
      if ARGV[at + 5] ~= '0' then
        spent = rolling_spent(key + 2 * i - 1, tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]))
      end
      held[i] = values[2 * i - 1]
      reply[2 * i + 2], reply[2 * i + 3] = spent, held[i] or '0'
      if ARGV[at] ~= '' and not must and spent + (held[i] or 0) + ARGV[at + 1] > tonumber(ARGV[at]) then
        fits = false
      end
    end
  end

  if fits then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2], ARGV[1] .. ':takes', takes)
    redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + ARGV[3]), ARGV[1])
    for i = 1, count do
      local at = first + 7 * (i - 1)
      redis.call('INCRBY', KEYS[key + 2 * i - 2], ARGV[at + 1])
      -- The `held` of a rolling or endless window has no end; it goes when nothing is held any more.
      if not held[i] and ARGV[at + 4] ~= '0' and ARGV[at + 5] == '0' then
        redis.call('PEXPIREAT', KEYS[key + 2 * i - 2], ARGV[at + 4])
      end
    end
    return reply
  end
  if not refused then
    reply[1], refused = 'REFUSED', reply
    table.remove(reply, 3)
  end
  choice, key, argument = choice + 1, key + 2 * count, first + 7 * count
end
return refused
