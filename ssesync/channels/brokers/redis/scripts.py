"""The Redis broker's scripts. Each is one atomic step.

Keys, all with one prefix in braces, so that in a cluster they are in one slot::

    {prefix}:meta               hash: epoch, seq of the last event, base (up to it, whole channels may be missing)
    {prefix}:index              stream: for each event its channel ("c") and the seq of the event before ("p")
    {prefix}:tails              sorted set: each channel by the seq of its last event
    {prefix}:log:<channel>      stream: the bodies ("b") of a channel's events
    {prefix}:info:<channel>     hash: bytes of that stream, seq of the last event that was trimmed away
    {prefix}:alive              sorted set: each process that listens, by when it counts as ended
    {prefix}:here:<process>     hash: the number of subscribers in that process, by channel
    {prefix}:wake:<process>     stream: ends the wait of that process
    {prefix}:claim:<name>       a token that was used

If its ``maxmemory-policy`` allows eviction, Redis may delete any of these keys between two scripts, as a whole. So the
scripts trust only data that they can check, and check before they write:

- Without ``meta``, or without ``tails`` although events were published, the log's content is not known: the remaining
  keys are deleted, as far as their names are known, and a new epoch begins.
- A channel that is in ``tails`` has at least one event in its log, and an ``info``. Without one of them all of its
  events up to its tail count as trimmed.
- A channel that is not in ``tails`` has no events. Its remaining keys are deleted at the next publish to it.
- Without ``index``, or its older part, listeners ask for the channels that have later events: those in ``tails``.
- Without ``alive`` and ``here`` subscribers of other processes are not counted until these announce them anew.

An event's seq is the time in microseconds, or one more than the last: so a server that has lost its latest events in a
crash does not use their numbers again. A stream's ids are ``<seq>-0``. Lua's numbers hold it exactly (2**53).
"""

__all__ = ["ANNOUNCE", "COUNT", "PUBLISH", "READ", "RENEW", "SINCE"]

_COMMON = """
local p = ARGV[1]
local meta, index, tails = p .. ':meta', p .. ':index', p .. ':tails'
local function num(x) return string.format('%.0f', x) end
local function seq_of(id) return tonumber(string.match(id, '^(%d+)')) end
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function delete(name) redis.call('DEL', p .. ':log:' .. name, p .. ':info:' .. name) end
local function current(candidate)
  local m = redis.call('HMGET', meta, 'epoch', 'seq', 'base')
  local seq = tonumber(m[2] or 0)
  if m[1] and m[2] and m[3] and (seq == 0 or redis.call('EXISTS', tails) == 1) then
    return m[1], seq, tonumber(m[3])
  end
  -- A part of the log was lost: delete the rest. A server without free memory refuses this first write, and so the
  -- whole script.
  redis.call('HSET', meta, 'epoch', candidate, 'seq', '0', 'base', '0')
  for _, name in ipairs(redis.call('ZRANGE', tails, 0, -1)) do delete(name) end
  for _, entry in ipairs(redis.call('XRANGE', index, '-', '+')) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'c' then delete(entry[2][i + 1]) end
    end
  end
  redis.call('DEL', index, tails)
  return candidate, 0, 0
end
-- The seq up to which a channel's events are gone; whether all later ones are in its log.
local function gone(name, base)
  local tail = redis.call('ZSCORE', tails, name)
  if not tail then return base, false end
  local trimmed = redis.call('HGET', p .. ':info:' .. name, 'trimmed')
  if trimmed and redis.call('EXISTS', p .. ':log:' .. name) == 1 then return tonumber(trimmed), true end
  return tonumber(tail), false
end
local function forget(name, base)
  local tail = tonumber(redis.call('ZSCORE', tails, name))
  delete(name)
  redis.call('ZREM', tails, name)
  if tail > base then base = tail end
  redis.call('HSET', meta, 'base', num(base))
  return base
end
"""

#: ARGV: prefix, epoch if there is none, channel, body, max_events, max_bytes, max_age in us or 0, max_channels,
#: entries of the index. Returns epoch, seq.
PUBLISH = (
    _COMMON
    + """
local channel, body = ARGV[3], ARGV[4]
local max_events, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local max_age, max_channels = tonumber(ARGV[7]), tonumber(ARGV[8])
local epoch, last, base = current(ARGV[2])
local time = now()
local seq = math.max(last + 1, time)
local cutoff = max_age > 0 and time - max_age or 0
local log, info = p .. ':log:' .. channel, p .. ':info:' .. channel
local before, whole = gone(channel, base)
if not whole then
  redis.call('HSET', info, 'trimmed', num(before), 'bytes', '0')  -- first: a server without free memory refuses it
  redis.call('DEL', log)
end
local id = num(seq) .. '-0'
redis.call('XADD', log, id, 'b', body)
redis.call('XADD', index, 'MAXLEN', '~', ARGV[9], id, 'c', channel, 'p', num(last))
redis.call('HSET', meta, 'seq', num(seq))
redis.call('ZADD', tails, num(seq), channel)
local events = redis.call('XLEN', log)
local bytes = redis.call('HINCRBY', info, 'bytes', #body)
local trimmed = nil
while events > 1 do
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local old = seq_of(first[1])
  if events <= max_events and bytes <= max_bytes and old >= cutoff then break end
  redis.call('XDEL', log, first[1])
  events = events - 1
  bytes = bytes - #first[2][2]
  trimmed = old
end
if trimmed then
  redis.call('HSET', info, 'trimmed', num(trimmed), 'bytes', num(bytes))
end
for _ = 1, 20 do
  local oldest = redis.call('ZRANGE', tails, 0, 0, 'WITHSCORES')
  if tonumber(oldest[2]) >= cutoff and redis.call('ZCARD', tails) <= max_channels then break end
  base = forget(oldest[1], base)
end
return {epoch, num(seq)}
"""
)

#: ARGV: prefix, epoch if there is none, seq, entries. Returns epoch, head, the entries of the index after that seq as
#: seq, channel, seq of the event before, ...; and, without entries or if the index begins later than that seq, the
#: channels with later events.
SINCE = (
    _COMMON
    + """
local epoch, head = current(ARGV[2])
local after, entries, channels = tonumber(ARGV[3]), {}, {}
if after >= 0 and ARGV[4] ~= '0' then
  for _, entry in ipairs(redis.call('XRANGE', index, '(' .. num(after) .. '-0', '+', 'COUNT', ARGV[4])) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    entries[#entries + 1] = num(seq_of(entry[1]))
    entries[#entries + 1] = fields.c
    entries[#entries + 1] = fields.p
  end
end
if after >= 0 and head > after and (#entries == 0 or tonumber(entries[3]) > after) then
  channels = redis.call('ZRANGEBYSCORE', tails, '(' .. num(after), '+inf')
end
return {epoch, num(head), entries, channels}
"""
)

#: ARGV: prefix, epoch if there is none, the client's epoch, its seq, up to which seq or '+', events of a channel,
#: max_age in us or 0, whether there are channels whose names are not known, channels ... Returns epoch, head, why the
#: client can't resume (or ''), and for each channel its name and its events as id, fields.
READ = (
    _COMMON
    + """
local epoch, head, base = current(ARGV[2])
local after, upto, count, max_age = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])
if epoch ~= ARGV[3] or after > head then return {epoch, num(head), 'unknown'} end
local function is_unknown()
  if after == 0 or after == head then return false end
  local later = redis.call('XRANGE', index, '(' .. num(after) .. '-0', '+', 'COUNT', 1)[1]
  if not later then return false end
  for i = 1, #later[2], 2 do
    if later[2][i] == 'p' then return tonumber(later[2][i + 1]) < after end
  end
end
if is_unknown() then return {epoch, num(head), 'unknown'} end
if ARGV[8] == '1' and base > after then return {epoch, num(head), 'trimmed'} end
local cutoff = max_age > 0 and now() - max_age or 0
local out = {epoch, num(head), ''}
for i = 9, #ARGV do
  local name = ARGV[i]
  local trimmed, whole = gone(name, base)
  if trimmed > after then return {epoch, num(head), 'trimmed'} end
  local entries = {}
  if whole then
    entries = redis.call('XRANGE', p .. ':log:' .. name, '(' .. num(after) .. '-0', upto, 'COUNT', count)
  end
  if #entries > 0 then
    if seq_of(entries[1][1]) < cutoff then return {epoch, num(head), 'trimmed'} end
    out[#out + 1] = name
    out[#out + 1] = entries
  end
end
return out
"""
)

#: ARGV: prefix, epoch, new epoch. Begins a new epoch unless another process has: events of the old one are lost.
RENEW = (
    _COMMON
    + """
local epoch, head = current(ARGV[3])
if epoch == ARGV[2] then
  epoch = ARGV[3]
  redis.call('HSET', meta, 'epoch', epoch)
end
return {epoch, num(head)}
"""
)

#: ARGV: prefix, process, seconds, (channel, subscribers) ... Returns whether earlier announcements are still stored.
ANNOUNCE = (
    _COMMON
    + """
local here, alive = p .. ':here:' .. ARGV[2], p .. ':alive'
local known = redis.call('EXISTS', here)
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '0' then redis.call('HDEL', here, ARGV[i]) else redis.call('HSET', here, ARGV[i], ARGV[i + 1]) end
end
redis.call('HSET', here, '', '1')
redis.call('EXPIRE', here, ARGV[3])
redis.call('ZREMRANGEBYSCORE', alive, '-inf', '(' .. num(now()))
redis.call('ZADD', alive, num(now() + tonumber(ARGV[3]) * 1000000), ARGV[2])
return known
"""
)

#: ARGV: prefix, process, channel. Returns the number of subscribers in other processes.
COUNT = (
    _COMMON
    + """
local count = 0
for _, process in ipairs(redis.call('ZRANGEBYSCORE', p .. ':alive', num(now()), '+inf')) do
  if process ~= ARGV[2] then
    count = count + tonumber(redis.call('HGET', p .. ':here:' .. process, ARGV[3]) or 0)
  end
end
return count
"""
)
