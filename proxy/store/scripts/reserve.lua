-- reserve: takes what a call is about to use of its counters and registers its hold: all in one step, or nothing.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 settled:<call_id>   then those of the marks: of each its memory, or the hash of
--       now and the one before, and where it lends, answer and leader   then for each take of each candidate: held, spent
-- ARGV  1 call_id   2 draft (JSON)   3 life of the hold in ms   4 `1` where the call runs already: its takes are
--       registered whatever the limits and windows say   5 how many marks; where there are any: 6 the id as 16 bytes,
--       7 user and task as the memory keeps them, 8 the marks as text, 9 since when it waits for a running twin (0: it
--       has just come), 10 how long a leader is one at most in ms; then for each mark: kind (e the same, t task, l loop,
--       s similar), how many hashes, limit, since when calls count (below 0: so long before now), when the memory
--       expires, what happens beyond the limit (refuse, stop: the same and a cycle stays refused, replay, join, lead, or
--       empty), and in one: token (7 bytes), attempt (1), rounds (1), fingerprint   then for each candidate: how many
--       takes, the takes as text, from when and until when all their windows admit (until 0: always), and for each take:
--       limit (empty: never refuses), amount, when its `held` expires (0: never), start of a rolling window (else empty)
-- Reply ADMITTED, now, choice, spent and held of each take before the call as one text;  REFUSED, now, the same of
--       candidate 0;  WINDOW, now: the clock is outside a window;  HELD, now, takes as text: the call has its
--       hold already, which lives on;  SETTLED, now: the call is settled, nothing is held. Error REBUILDING without an epoch.
--       With marks, ADMITTED and REFUSED end in a list of what was there under each: how many, the first of them (its
--       id as 16 bytes), its user and task; the list is empty where there was none at all;  REPLAY, now, answer, that
--       list;  JOIN, now, call_id of the running twin, that list: nothing was taken.
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
  -- It asks, so it runs: its hold lives on. Nothing is taken a second time.
  redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + ARGV[3]), ARGV[1])
  redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[2])
  return {'HELD', now, holding}
end

-- The spend of a rolling window since its start. Its hash keeps each sub-bucket by its start, and the sum of those that
-- count since `from`: it is worked out anew when the window moves on, and what no window needs any more goes.
local function rolling_spent(at, start)
  local cached = redis.call('HMGET', KEYS[at], 'from', 'sum')
  if cached[1] == start then
    return cached[2]
  end
  local fields, sum, start_ms = redis.call('HGETALL', KEYS[at]), 0, tonumber(start)
  if #fields == 0 then
    return '0'
  end
  for i = 1, #fields, 2 do
    local bucket_ms = tonumber(fields[i])
    if bucket_ms and bucket_ms >= start_ms then
      sum = sum + fields[i + 1]
    elseif bucket_ms then
      redis.call('HDEL', KEYS[at], fields[i])
    end
  end
  sum = string.format('%.0f', sum)
  redis.call('HSET', KEYS[at], 'from', start, 'sum', sum)
  return sum
end

local must = ARGV[4] == '1'
local refused
local choice, key, argument = 0, 5, 6
local leave_all, stop_all, seen_before, stopped
local marked = {}
if ARGV[5] ~= '0' then
-- include: remembered
-- include: marks
  local marks, any_before = {}, false
  seen_before, marked = {}, {ARGV[1] .. ':marks', ARGV[8]}
  leave_all = function()
    for _, mark in ipairs(marks) do
      leave(mark, ARGV[6], ARGV[7], ARGV[1], ARGV[10])
    end
  end
  stop_all = function()
    for _, mark in ipairs(marks) do
      if mark.exceeded then
        stop(mark, ARGV[6])
      end
    end
  end
  local waiting_since_ms = tonumber(ARGV[9])
  argument = 11
  for number = 1, tonumber(ARGV[5]) do
    local since_ms, action, told = tonumber(ARGV[argument + 3]), ARGV[argument + 5], ARGV[argument + 6]
    local mark = {
      kind = ARGV[argument], places = tonumber(ARGV[argument + 1]), limit = tonumber(ARGV[argument + 2]),
      since_ms = since_ms < 0 and now_ms + since_ms or since_ms, expires_ms = ARGV[argument + 4],
      lends = action == 'replay' or action == 'join' or action == 'lead', key = key,
      token = string.sub(told, 1, 7), attempt = string.byte(told, 8), rounds = string.byte(told, 9),
      fingerprint = string.sub(told, 10), action = action, items = '',
    }
    key, argument = key + mark.places, argument + 7
    if mark.lends then
      mark.answer, mark.leader, key = key, key + 1, key + 2
    end
    local is_row = mark.kind == 'l' or mark.kind == 's'
    local count, twin, who = (is_row and look_at_row or look_at_calls)(mark)
    marks[number], seen_before[number] = mark, {count, twin, who}
    any_before = any_before or count > 0
    mark.exceeded = count >= mark.limit
    stopped = stopped or (mark.exceeded and (action == 'refuse' or action == 'stop'))
  end
  if not any_before then
    seen_before = {}
  end
  for _, mark in ipairs(marks) do
    if mark.lends then
      local found = redis.call('MGET', KEYS[mark.answer], KEYS[mark.leader])
      local answer, leader = found[1], found[2]
      -- An answer begins with when it was kept, 13 digits.
      local since_ms = mark.action == 'replay' and mark.since_ms or waiting_since_ms
      local asks = mark.exceeded and mark.action ~= 'lead'
      if asks and answer and since_ms > 0 and (tonumber(string.sub(answer, 1, 13)) or 0) >= since_ms then
        return {'REPLAY', now, answer, seen_before}
      end
      local expires_ms = leader and redis.call('ZSCORE', KEYS[2], leader)
      mark.led = expires_ms and tonumber(expires_ms) > now_ms
      if mark.exceeded and mark.led and mark.action == 'join' then
        return {'JOIN', now, leader, seen_before}
      end
    end
  end
end
while argument <= #ARGV do
  local count, first = tonumber(ARGV[argument]), argument + 4
  local until_ms = tonumber(ARGV[argument + 3])
  if not must and until_ms > 0 and (now_ms < tonumber(ARGV[argument + 2]) or now_ms >= until_ms) then
    return {'WINDOW', now}
  end

  local states, values, fits, at = {}, {}, true, first
  if count > 0 then
    values = redis.call('MGET', unpack(KEYS, key, key + 2 * count - 1))
  end
  for i = 1, 2 * count, 2 do
    local held, spent, limit = values[i] or '0', values[i + 1] or '0', ARGV[at]
    if not must then
      if ARGV[at + 3] ~= '' then
        spent = rolling_spent(key + i, ARGV[at + 3])
      end
      if limit ~= '' and spent + held + ARGV[at + 1] > tonumber(limit) then
        fits = false
      end
    end
    states[i], states[i + 1] = spent, held
    at = at + 4
  end

  if fits and not stopped then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2], ARGV[1] .. ':takes', ARGV[argument + 1], unpack(marked))
    redis.call('ZADD', KEYS[2], string.format('%.0f', now_ms + ARGV[3]), ARGV[1])
    at = first
    for i = 1, 2 * count, 2 do
      redis.call('INCRBY', KEYS[key + i - 1], ARGV[at + 1])
      if not values[i] and ARGV[at + 2] ~= '0' then
        redis.call('PEXPIREAT', KEYS[key + i - 1], ARGV[at + 2])
      end
      at = at + 4
    end
    if leave_all then
      leave_all()
    end
    return {'ADMITTED', now, choice, table.concat(states, ','), seen_before}
  end
  refused = refused or {'REFUSED', now, table.concat(states, ',')}
  choice, key, argument = choice + 1, key + 2 * count, at
end
if seen_before then
  stop_all()
  refused[4] = seen_before
end
return refused
