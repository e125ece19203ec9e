-- settle: ends the hold of a call and puts its record into the stream, exactly once for each revision.
--
-- KEYS  1 epoch   2 holds   3 drafts   4 settled:<call_id>   5 records
-- ARGV  1 call_id   2 revision   3 record (JSON)   4 ms to remember a settled call   5 ms to remember an unusual one
-- Reply the revision that was written; 0 if this revision was settled before. Error REBUILDING without an epoch.
--
-- The marker is `asked:shift`. `asked` is the highest revision settled so far, which makes a repeat a no-op. `shift` is
-- 1 where the sweeper had given the call up as lost and so used revision 1: all later ones move up by it. The number
-- in the stream entry counts, not the one inside the JSON, so nobody has to write the JSON anew.
-- Unusual calls (lost before, or settled by a later revision) are remembered for as long as a spool may be old.
-- A record older than the store's memory is written again; the ledger knows every call_id and ignores it.

local epoch = redis.call('GET', KEYS[1])
if not epoch then
  return redis.error_reply('REBUILDING no epoch')
end

local asked, shift = 0, 0
local marker = redis.call('GET', KEYS[4])
if marker then
  local asked_text, shift_text = string.match(marker, '^(%d+):(%d+)$')
  asked, shift = tonumber(asked_text), tonumber(shift_text)
end

local revision = tonumber(ARGV[2])
local written = 0
if revision > asked then
  written = revision + shift
  local life_ms = ARGV[4]
  if written > 1 then
    life_ms = ARGV[5]
  end
  -- The commands that a full store denies come first: once a script has written, nothing in it is denied any more,
  -- so either all of it happens or none.
  redis.call('XADD', KEYS[5], '*', 'e', epoch, 'v', string.format('%.0f', written), 'r', ARGV[3])
  redis.call('SET', KEYS[4], string.format('%.0f:%.0f', revision, shift), 'PX', life_ms)
end

redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return written
