-- settle: ends the hold of a call, charges its counters and puts its record into the stream, once for each revision.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 settled:<call_id>   5 records   then for each take: held, spent
-- ARGV  1 call_id   2 revision; 0: the call is given up as lost   3 record (JSON; empty: leave no record)
--       4 ms to remember a settled call   5 ms to remember an unusual one   6 the takes as text
--       7 nano-USD, 8 tokens and 9 calls that it came to   10 `1` where the record is older than 4, so that the call
--       may have been settled and forgotten   11 `1` where it came to nothing, so that its
--       marks are forgotten   then for each take: amount held, unit, when the counter expires (0: never; of a rolling
--       one, ms after its last use), and of a rolling one the sub-bucket (else empty)
-- Reply the revision that was written; 0 if this revision was settled before, or the hold of a lost call was renewed;
--       TAKES and the takes as text: the hold names others, nothing was done. Error REBUILDING without an epoch.
--
-- The marker is `asked:shift:nusd:tokens:calls`. `asked` is the highest revision settled so far, which makes a repeat a
-- no-op; 0 means lost. `shift` is 1 where the call was lost before and so used revision 1: all later ones move up by
-- it. The number in the stream entry counts, not the one inside the JSON, so nobody has to write the JSON anew. The
-- rest is what the counters were charged, so that a later revision charges the difference.
-- Unusual calls (lost before, or settled by a later revision) are remembered for as long as a spool may be old.
-- A record older than the store's memory is written again, and not charged unless its hold is still there: the ledger
-- knows every call_id, and the field `t`, its takes, says that they are to be charged if the record is new there.

local seen = redis.call('MGET', KEYS[1], KEYS[4])
local epoch, marker = seen[1], seen[2]
if not epoch then
  return redis.error_reply('REBUILDING no epoch')
end

local found = redis.call('HMGET', KEYS[3], ARGV[1] .. ':takes', ARGV[1] .. ':marks')
local holding, marks = found[1], found[2]
if holding and holding ~= ARGV[6] then
  return {'TAKES', holding}
end

local revision = tonumber(ARGV[2])
if revision == 0 then
  local time = redis.call('TIME')
  local expires_ms = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not expires_ms or tonumber(expires_ms) > time[1] * 1000 + math.floor(time[2] / 1000) then
    return 0
  end
end

local asked, shift, nusd, tokens, calls = -1, 0, 0, 0, 0
if marker then
  local found = {string.match(marker, '^(%d+):(%d+):(%d+):(%d+):(%d+)$')}
  asked, shift = tonumber(found[1]), tonumber(found[2])
  nusd, tokens, calls = tonumber(found[3]), tonumber(found[4]), tonumber(found[5])
elseif revision == 0 then
  shift = 1
elseif revision > 1 then
  calls = tonumber(ARGV[9]) -- the first revision counted the call; its money and tokens were not known then
end

local written, charge = 0, {nusd = 0, tokens = 0, calls = 0, concurrent = 0}
if revision > asked and ARGV[3] ~= '' then
  written = revision + shift
  local life_ms = ARGV[4]
  if written > 1 or revision == 0 then
    life_ms = ARGV[5]
  end
  -- The commands that a full store denies come first: once a script has written, nothing in it is denied any more,
  -- so either all of it happens or none.
  local number = string.format('%.0f', written)
  if ARGV[10] == '1' and not marker and not holding and ARGV[6] ~= '' then
    redis.call('XADD', KEYS[5], '*', 'e', epoch, 'v', number, 'r', ARGV[3], 't', ARGV[6])
  else
    redis.call('XADD', KEYS[5], '*', 'e', epoch, 'v', number, 'r', ARGV[3])
    charge.nusd, charge.tokens, charge.calls = ARGV[7] - nusd, ARGV[8] - tokens, ARGV[9] - calls
  end
  marker = string.format('%.0f:%.0f:%s:%s:%s', revision, shift, ARGV[7], ARGV[8], ARGV[9])
  redis.call('SET', KEYS[4], marker, 'PX', life_ms)
end

local text_of = {}
for unit, amount in pairs(charge) do
  text_of[unit] = string.format('%.0f', amount)
end
for key = 6, #KEYS, 2 do
  local at = 12 + 2 * (key - 6)
  local expires, bucket, rolling = ARGV[at + 2], ARGV[at + 3], ARGV[at + 3] ~= ''
  if holding then
    local left = redis.call('DECRBY', KEYS[key], ARGV[at])
    if left < 0 or (left == 0 and (rolling or expires == '0')) then
      redis.call('DEL', KEYS[key])
    end
  end
  local amount, text = charge[ARGV[at + 1]], text_of[ARGV[at + 1]]
  if amount ~= 0 then
    if not rolling then
      -- The first spend of a window sets the end of its counter.
      if redis.call('INCRBY', KEYS[key + 1], text) == amount and expires ~= '0' then
        redis.call('PEXPIREAT', KEYS[key + 1], expires)
      end
    else
      local from = redis.call('HGET', KEYS[key + 1], 'from')
      if from and tonumber(bucket) >= tonumber(from) then
        redis.call('HINCRBY', KEYS[key + 1], 'sum', text)
      end
      if redis.call('HINCRBY', KEYS[key + 1], bucket, text) == amount then
        redis.call('PEXPIRE', KEYS[key + 1], expires)
      end
    end
  end
end

redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1], ARGV[1] .. ':takes', ARGV[1] .. ':marks')
if marks then
-- include: remembered
  forget(ARGV[1], marks, ARGV[11] == '1')
end
return written
