"""The scripts of the Redis broker that append to the log. Their keys: see ``scripts.py``."""

from .scripts import COMMON

__all__ = ["APPEND", "PUBLISH", "REPAIR"]

#: After ``COMMON``, of scripts that write what is known of runs.
REPAIR = """
-- Call it before active, owners and due are used: it makes them again if one was evicted. Owners get 5 seconds to renew
-- their leases. The empty name, which each of the three always has, is of no run and of no process.
local function repair(time)
  if redis.call('EXISTS', active, owners, due) == 3 then return end
  redis.call('ZADD', due, '+inf', '')
  redis.call('ZADD', owners, '+inf', '')
  redis.call('HSET', active, '', '')
  local entries = redis.call('ZRANGE', runs, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local name, score = entries[i], tonumber(entries[i + 1])
    local r = redis.call('HMGET', p .. ':run:' .. name, 'state', 'owner', 'subject', 'begin_by', 'remove_at',
      'broken')
    if score > math.floor(score) then
      redis.call('ZADD', due, r[5] or num(time), name)
    elseif name ~= '\\1' then
      redis.call('HSET', active, name, ':' .. (r[3] or ''))
      if not r[1] or r[6] then
        redis.call('ZADD', due, num(time), name)
      elseif r[1] == 'running' then
        redis.call('ZADD', owners, 'NX', num(time + 5000000), r[2])
      elseif r[4] then
        redis.call('ZADD', due, r[4], name)
      end
    end
  end
end
"""

# After ``COMMON``: how a channel that is no run's begins, and what its limits remove.
_LIMITS = """
local function begin_stream(c)
  local info = p .. ':info:' .. c.name
  if redis.call('TYPE', info).ok == 'string' then redis.call('DEL', info) end  -- of a run that is gone
  redis.call('HSET', info, 'trimmed', num(c.trimmed))  -- first: a server without free memory refuses it
  redis.call('DEL', c.stream)
end
local function trim(c, max_events, max_bytes, cutoff)
  local info, trimmed = p .. ':info:' .. c.name, nil
  while c.events > 1 do
    local first = redis.call('XRANGE', c.stream, '-', '+', 'COUNT', 1)[1]
    local old = seq_of(first[1])
    if c.events <= max_events and c.bytes <= max_bytes and old >= cutoff then break end
    redis.call('XDEL', c.stream, first[1])
    c.events = c.events - 1
    c.bytes = c.bytes - #first[2][2]
    trimmed = old
  end
  if trimmed then
    redis.call('HSET', info, 'trimmed', num(trimmed), 'bytes', num(c.bytes))
  else
    redis.call('HSET', info, 'bytes', num(c.bytes))
  end
end
local function remove_channels(base, max_channels, cutoff, most)
  for _ = 1, most do
    local oldest = redis.call('ZRANGE', tails, 0, 0, 'WITHSCORES')
    if tonumber(oldest[2]) >= cutoff and redis.call('ZCARD', tails) <= max_channels then break end
    base = forget(oldest[1], oldest[2], base)
  end
end
"""

#: ARGV: prefix, epoch if there is none, max_events, max_bytes, max_age in us or 0, max_channels, entries of the index,
#: channel, body: of an event that is neither final nor a run's. Returns epoch, seq; 0 in its place if it is refused.
#: ``APPEND`` does the same, and takes a third longer for a single event.
PUBLISH = (
    COMMON
    + _LIMITS
    + """
local max_age = tonumber(ARGV[5])
local epoch, last, base, has_runs = current(ARGV[2])
local c = find_channel(ARGV[8], base, has_runs)
if c.closed or c.is_run then return {epoch, '0'} end
local time = now()
local cutoff = max_age > 0 and time - max_age or 0
local seq = num(math.max(last + 1, time))
local id = seq .. '-0'
if not c.whole then begin_stream(c) end
redis.call('XADD', c.stream, id, 'b', ARGV[9])
redis.call('XADD', index, 'MAXLEN', '~', ARGV[7], id, 'c', c.name, 'p', num(last))
redis.call('HSET', meta, 'seq', seq)
redis.call('ZADD', tails, seq, c.name)
c.events, c.bytes = c.events + 1, c.bytes + #ARGV[9]
trim(c, tonumber(ARGV[3]), tonumber(ARGV[4]), cutoff)
remove_channels(base, tonumber(ARGV[6]), cutoff, 20)
return {epoch, seq}
"""
)

#: ARGV: prefix, epoch if there is none, max_events, max_bytes, max_age in us or 0, max_channels, entries of the index,
#: whether all or none, the events without their bodies, and all bodies, one behind the other. The events are JSON, each
#: an array of channel, size of the body, number, owner, end: an argument for each of these would take the client three
#: times as long. "end" is empty for an event that is not final, "final" for one without an outcome, else a state and,
#: after a line feed, a reason. Returns the epoch and for each event its seq, 0 (refused) or -1 (a duplicate). Where all
#: or none were to be appended and one is refused: epoch, 0, its channel.
APPEND = (
    COMMON
    + REPAIR
    + _LIMITS
    + """
local max_events, max_bytes, max_age = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_channels, index_size, all_or_none = tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'
local epoch, last, base, has_runs = current(ARGV[2])
local time = now()
local cutoff = max_age > 0 and time - max_age or 0
local REFUSED, DUPLICATE = 0, -1
-- Why an event is not appended, or nil.
local function refusal(c, number, owner, ending)
  if not c.is_run then
    if c.closed or number > 0 or owner ~= '' or (ending ~= '' and ending ~= 'final') then return REFUSED end
    return nil
  end
  local is_owners = owner == '' or owner == c.owner
  if c.closed then
    -- A final event is no duplicate: another process may have appended its own in that place.
    return is_owners and number > 0 and number < c.events and DUPLICATE or REFUSED
  end
  if not is_owners and c.owner then return REFUSED end
  local is_final = ending ~= ''
  if string.match(ending, '^interrupted') then return nil end
  if not c.whole then return REFUSED end
  if number > 0 and number <= c.events then return DUPLICATE end
  if number > c.events + 1 then
    c.is_broken = '1'
    return REFUSED
  end
  if ending == 'final' or (number == 0 and not is_final) or (is_final and c.is_broken) then return REFUSED end
  c.is_broken = false
  return nil
end
-- All that is checked comes before all that is written.
local out, channels, accepted = {epoch}, {}, {}
local seq, uses_due = math.max(last, time - 1), false
local begin = 1
for _, event in ipairs(cjson.decode(ARGV[9])) do
  local name, size, number, owner, ending = unpack(event)
  local c = channels[name]
  if not c then
    c = find_channel(name, base, has_runs)
    c.is_broken = c.broken
    channels[name] = c
  end
  local answer = refusal(c, number, owner, ending)
  if not answer then
    seq = seq + 1
    answer = seq
    c.tail, c.events, c.is_changed = seq, c.events + 1, true
    c.bytes = c.bytes + size
    if ending ~= '' then
      c.closed = true
      c.ending = ending
    end
    accepted[#accepted + 1] = {c, seq, string.sub(ARGV[10], begin, begin + size - 1), ending}
  end
  begin = begin + size
  if all_or_none and answer == REFUSED then return {epoch, '0', name} end
  if c.is_run and (c.closed or not c.whole or c.is_broken ~= c.broken) then uses_due = true end
  out[#out + 1] = num(answer)
end
if uses_due then repair(time) end
for _, each in ipairs(accepted) do
  local c, id, body, ending = each[1], num(each[2]) .. '-0', each[3], each[4]
  if not c.whole then
    if c.is_run then
      redis.call('HSET', p .. ':run:' .. c.name, 'since', num(c.trimmed), 'born', num(c.trimmed))
      redis.call('DEL', c.stream)
    else
      begin_stream(c)
    end
    c.whole = true
  end
  if ending == '' then
    redis.call('XADD', c.stream, id, 'b', body)
  else
    redis.call('XADD', c.stream, id, 'b', body, 'l', '1')
  end
  redis.call('XADD', index, 'MAXLEN', '~', index_size, id, 'c', c.name, 'p', num(last))
  last = each[2]
end
if #accepted > 0 then redis.call('HSET', meta, 'seq', num(last)) end
local function end_run(c)
  local run = p .. ':run:' .. c.name
  local state, reason = string.match(c.ending, '^([^\\n]*)\\n?(.*)$')
  local remove_at = num(time + tonumber(redis.call('HGET', run, 'keep') or 3600000000))
  redis.call('HSET', run, 'state', state, 'reason', reason, 'ended_at', num(time), 'remove_at', remove_at)
  redis.call('HDEL', active, c.name)
  redis.call('ZADD', due, remove_at, c.name)
end
-- Events of a run were lost, or have come after all: it is to be interrupted, or is not.
local function note_loss(c)
  if c.whole and not c.is_broken then
    redis.call('HDEL', p .. ':run:' .. c.name, 'broken')
    redis.call('ZREM', due, c.name)
  else
    redis.call('ZADD', due, num(time), c.name)
    if c.whole then redis.call('HSET', p .. ':run:' .. c.name, 'broken', '1') end
  end
end
local is_changed = false
for name, c in pairs(channels) do
  if c.is_changed then
    redis.call('ZADD', c.is_run and runs or tails, num(c.tail) .. (c.closed and '.5' or ''), name)
    if c.is_run then
      redis.call('HSET', p .. ':run:' .. name, 'events', num(c.events))
      if c.ending then end_run(c) end
    else
      is_changed = true
      trim(c, max_events, max_bytes, cutoff)
      if c.closed then redis.call('XSETID', c.stream, '18446744073709551615-18446744073709551615') end
    end
  end
  if c.is_run and not c.closed and (not c.whole or c.is_broken ~= c.broken) then note_loss(c) end
end
if is_changed then remove_channels(base, max_channels, cutoff, 20 + #accepted) end
return out
"""
)
