-- What is remembered of the calls with one fingerprint: the user and the task of the oldest, each with its length in a
-- byte before it, then for each call, oldest first, 24 bytes: its id (16, which begin with its time in ms), a token (7)
-- and how many retries were taken for it (1).
local ITEM = 24

local function header_end(value)
  local task_at = 2 + string.byte(value, 1)
  return task_at + string.byte(value, task_at)
end

local function made_at_ms(value, at)
  local a, b, c, d, e, f = string.byte(value, at, at + 5)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

-- Forgets a call in all that its marks name, for a repeat of it is no duplicate. Those keys are of the same slot as the
-- hold beside which reserve.lua wrote them down, so that whoever ends the call need not know them. Lines: `a` a leader; `h` a fingerprint
-- in hexadecimal and the hashes it may be in; `r` a row. `all` false: only that it leads.
local function forget(call_id, marks, all)
  local id = all and string.gsub(call_id, '%x%x', function(digits) return string.char(tonumber(digits, 16)) end)
  for kind, rest in string.gmatch(marks, '(%l) ([^\n]+)') do
    if kind == 'a' then
      if redis.call('GET', rest) == call_id then
        redis.call('DEL', rest)
      end
    elseif all and kind == 'r' then
      local row = redis.call('GET', rest)
      for at = 1, row and #row or 0, ITEM do
        if string.sub(row, at, at + 15) == id then
          local left = string.sub(row, 1, at - 1) .. string.sub(row, at + ITEM)
          if left == '' then
            redis.call('DEL', rest)
          else
            redis.call('SET', rest, left, 'KEEPTTL')
          end
          break
        end
      end
    elseif all then
      local field
      for word in string.gmatch(rest, '%S+') do
        if not field then
          field = string.gsub(word, '%x%x', function(digits) return string.char(tonumber(digits, 16)) end)
        else
          local value = redis.call('HGET', word, field)
          local first = value and header_end(value) + 1 or 0
          for at = first, value and #value or -1, ITEM do
            if string.sub(value, at, at + 15) == id then
              local header = at == first and '\0\0' or string.sub(value, 1, first - 1)
              local left = string.sub(value, first, at - 1) .. string.sub(value, at + ITEM)
              if left == '' then
                redis.call('HDEL', word, field)
              else
                redis.call('HSET', word, field, header .. left)
              end
              break
            end
          end
        end
      end
    end
  end
end
