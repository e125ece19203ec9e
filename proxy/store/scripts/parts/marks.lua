-- The marks of a call: what was there under each before it, and how it leaves its own. See core/twins.py, which is
-- the specification, and store/marks.py, which writes the arguments.
local STEPS_KEPT, SKETCHES_MAX, ITEMS_MAX, RETRIES_MAX, PERIOD_MAX, ROUNDS_MAX = 64, 64, 64, 10, 4, 64
local LIKE_BITS_MAX = 5
local NO_TOKEN = string.rep('\0', 7)
-- The step of an item that says that a cycle is stopped begins so; how many steps that has is its last byte.
local STOP = string.rep('\0', 7)

local function in_window(value, first, since_ms)
  while first <= #value and made_at_ms(value, first) < since_ms do
    first = first + ITEM
  end
  return first
end

local function retried(mark, tries, token)
  if mark.kind == 't' then
    return false
  end
  if mark.attempt > 0 then
    return tries < mark.attempt and mark.attempt <= RETRIES_MAX
  end
  return mark.token ~= NO_TOKEN and mark.token == token and tries < RETRIES_MAX
end

-- Calls with the same fingerprint. Leaves what counts of them in mark.header and mark.items.
local function look_at_calls(mark)
  local value
  for key = mark.key, mark.key + mark.places - 1 do
    value = redis.call('HGET', KEYS[key], mark.fingerprint)
    if value then
      mark.found = key
      break
    end
  end
  mark.header, mark.items = nil, ''
  if not value then
    return 0, '', ''
  end
  local first = header_end(value) + 1
  local at = in_window(value, first, mark.since_ms)
  if at > #value then
    return 0, '', ''
  end
  mark.items = string.sub(value, at)
  mark.header = at == first and string.sub(value, 1, first - 1) or '\0\0'
  local count = #mark.items / ITEM
  if mark.kind == 't' then
    for place = 0, count - 1 do
      if string.sub(mark.items, place * ITEM + 17, place * ITEM + 23) == mark.token then
        mark.known = true
        count = place
        break
      end
    end
  else
    local tries, token = string.byte(mark.items, -1), string.sub(mark.items, -8, -2)
    if retried(mark, tries, token) then
      mark.retries = tries
      count = count - 1
    end
  end
  if count == 0 then
    return 0, '', ''
  end
  return count, string.sub(mark.items, 1, 16), mark.header
end

local function differing_bits(one, other)
  local differing = 0
  for byte = 1, 8 do
    local bits = bit.bxor(string.byte(one, byte), string.byte(other, byte))
    while bits > 0 do
      bits, differing = bit.band(bits, bits - 1), differing + 1
    end
  end
  return differing
end

-- How many of the first `count` steps go on at their end as a cycle of so many does.
local function cycled(steps, count, period)
  local same = math.min(period, count)
  while same < count and steps[count - same] == steps[count - same + period] do
    same = same + 1
  end
  return same
end

-- The steps of a task, or the sketches of calls. Leaves what counts of them in mark.row, and of a loop what there would
-- be with this call in mark.rounds_here and mark.period. Behind a cycle that was refused stands a stop.
local function look_at_row(mark)
  local row = redis.call('GET', KEYS[mark.key]) or ''
  -- Calls need not come in the order of their times, so each is looked at.
  local kept = {}
  for at = 1, #row, ITEM do
    if made_at_ms(row, at) >= mark.since_ms then
      kept[#kept + 1] = string.sub(row, at, at + ITEM - 1)
    end
  end
  mark.row = kept
  if mark.kind == 's' then
    local count, twin = 0, ''
    for place = 1, #kept do
      if differing_bits(string.sub(kept[place], 17), mark.fingerprint) <= LIKE_BITS_MAX then
        count = count + 1
        twin = twin == '' and string.sub(kept[place], 1, 16) or twin
      end
    end
    return count, twin, ''
  end
  if #kept > 0 and string.sub(kept[#kept], 17, 23) == STOP then
    mark.stop, mark.stopped = kept[#kept], string.byte(kept[#kept], 24)
    kept[#kept] = nil
  end
  local steps, twin = {}, ''
  for place = 1, #kept do
    steps[place] = string.sub(kept[place], 17)
    if string.sub(steps[place], 1, 7) == STOP then
      steps[place] = place -- others came behind it: it is like no other step
    end
    if twin == '' and steps[place] == mark.fingerprint then
      twin = string.sub(kept[place], 1, 16)
    end
  end
  mark.again = mark.attempt > 0 and steps[#steps] == mark.fingerprint
  if not mark.again then
    steps[#steps + 1] = mark.fingerprint
  end
  local best, best_period = 1, 1
  for period = 1, math.min(PERIOD_MAX, #steps) do
    local rounds = math.floor(cycled(steps, #steps, period) / period)
    if rounds > best then
      best, best_period = rounds, period
    end
  end
  mark.period, mark.rounds_here = best_period, math.min(best, ROUNDS_MAX)
  local rounds = math.max(mark.rounds_here, mark.rounds)
  if mark.stopped then
    for place = math.max(1, #kept - mark.stopped + 1), #kept do
      mark.goes_on = mark.goes_on or steps[place] == mark.fingerprint
    end
    if mark.goes_on and not mark.again and mark.action == 'stop' then
      local stopped_rounds = math.floor((cycled(steps, #kept, mark.stopped) + 1) / mark.stopped)
      rounds = math.max(rounds, math.min(stopped_rounds, ROUNDS_MAX))
    end
  end
  return rounds - 1, rounds > 1 and twin or '', ''
end

-- A step of a cycle is refused: the cycle is stopped.
local function stop(mark, id)
  if mark.action == 'stop' and mark.period > 1 and mark.rounds_here > mark.limit and not mark.stopped then
    local row = table.concat(mark.row) .. id .. STOP .. string.char(mark.period)
    redis.call('SET', KEYS[mark.key], row, 'KEEPTTL')
  end
end

local function leave(mark, id, header, call_id, life_ms)
  if mark.kind == 'l' or mark.kind == 's' then
    local row = mark.row
    if mark.again then
      row[#row] = nil
    end
    if not mark.goes_on then
      row[#row + 1] = mark.stop
    end
    row[#row + 1] = id .. mark.fingerprint
    local most = SKETCHES_MAX
    if mark.kind == 'l' then
      most = PERIOD_MAX * math.min(math.max(STEPS_KEPT / PERIOD_MAX, mark.limit + 1), ROUNDS_MAX)
    end
    redis.call('SET', KEYS[mark.key], table.concat(row, '', math.max(1, #row - most + 1)), 'PXAT', mark.expires_ms)
  elseif not mark.known then
    local items = mark.items
    if mark.retries then
      local tries = mark.attempt > 0 and mark.attempt or mark.retries + 1
      items = string.sub(items, 1, -ITEM - 1) .. id .. mark.token .. string.char(tries)
      if #items == ITEM then
        mark.header = header
      end
    else
      if #items >= ITEMS_MAX * ITEM then
        items = string.sub(items, 1, ITEM) .. string.sub(items, 2 * ITEM + 1)
      end
      items = items .. id .. mark.token .. string.char(math.min(mark.attempt, RETRIES_MAX))
    end
    local is_new = redis.call('HSET', KEYS[mark.key], mark.fingerprint, (mark.header or header) .. items) == 1
    if is_new and redis.call('HLEN', KEYS[mark.key]) == 1 then
      redis.call('PEXPIREAT', KEYS[mark.key], mark.expires_ms)
    end
    if mark.found and mark.found ~= mark.key then
      redis.call('HDEL', KEYS[mark.found], mark.fingerprint)
    end
  elseif mark.found ~= mark.key then
    redis.call('HDEL', KEYS[mark.found], mark.fingerprint)
    redis.call('HSET', KEYS[mark.key], mark.fingerprint, mark.header .. mark.items)
    redis.call('PEXPIREAT', KEYS[mark.key], mark.expires_ms)
  end
  if mark.lends and not mark.led then
    redis.call('SET', KEYS[mark.leader], call_id, 'PX', life_ms)
  end
end
