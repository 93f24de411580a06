"""The Redis broker's scripts. Each is one atomic step.

Here are those that read the log. ``append_scripts.py`` has the one that appends, ``run_scripts.py`` those for runs.

Keys, all with one prefix in braces, so that in a cluster they are in one slot::

    {prefix}:meta               hash: epoch, seq of the last event, base (up to it, whole channels may be missing), runs
                                (the epoch in which the keys of runs are valid), removed (the seq of the last event of
                                the runs that were removed, and 1 more)
    {prefix}:index              stream: for each event its channel ("c") and the seq of the event before ("p")
    {prefix}:tails              sorted set: each channel by the seq of its last event, 0.5 higher if it is closed
    {prefix}:log:<channel>      stream: the bodies ("b") of a channel's events; the final one has "l" as well
    {prefix}:info:<channel>     hash: bytes of that stream, seq of the last event that was trimmed away
    {prefix}:alive              sorted set: each process that listens, by when it counts as ended
    {prefix}:here:<process>     hash: the number of subscribers in that process, by channel
    {prefix}:wake:<process>     stream: ends the wait of that process
    {prefix}:claim:<name>       a token that was used

Keys of runs::

    {prefix}:runs               sorted set: each run, as channels are in tails. No run is in tails
    {prefix}:run:<name>         hash: the run's record as it was added, with its owner, state and reason; since (lower
                                ids may be of another run of the name), born (the log's head when it was added), the
                                number of its events, broken (one was lost); in microseconds keep (after its end),
                                begin_by, ended_at, remove_at
    {prefix}:events:<name>      stream: the run's events, as in log:<channel>
    {prefix}:info:<name>        for a run: text
    {prefix}:active             hash: the subject of each run that has not ended
    {prefix}:owners             sorted set: each process that owns runs, by the end of its lease
    {prefix}:due                sorted set: runs by the time when they are to be ended or removed

If its ``maxmemory-policy`` allows eviction, Redis may delete any of these keys between two scripts, as a whole. So the
scripts trust only data that they can check, and check before they write:

- Without ``meta``, without ``tails`` although events were published, or without ``runs`` although a run was added, the
  log's content is not known: the remaining keys are deleted, as far as their names are known, and a new epoch begins.
- A channel that is in ``tails`` has at least one event in its log, and an ``info``. Without one of them all of its
  events up to its tail count as trimmed. It is closed or not by its tail alone.
- A run that is in ``runs`` has a ``run``, and as many events as that counts. Else all of its events up to its tail
  count as trimmed, and the only event that it takes is a final one that interrupts it. Without ``run`` it is unknown.
  An event whose number shows that the server has lost others makes the run ``broken``: unless these come, it can only
  be interrupted.
- A channel that is in neither has no events. Its remaining keys are deleted at the next publish to it.
- Without ``index``, or its older part, listeners ask for the channels that have later events: those in ``tails`` and
  ``runs``.
- ``active``, ``owners`` and ``due`` are never empty. If one of them is missing, they are made again from the runs.
- Without ``alive`` and ``here`` subscribers of other processes are not counted until these announce them anew.

Processes of an earlier version, without closed channels and runs, may use the same keys. Redis refuses their appends
to a closed channel, since the last id of its stream is set to the highest that there is, and to a run's name, since
``info`` is no hash. Their limits remove only channels that are in ``tails``. They don't read runs. If one of them
begins a new epoch, ``runs`` in ``meta`` is another one, and all runs are unknown.

An event's seq is the time in microseconds, or one more than the last: so a server that has lost its latest events in a
crash does not use their numbers again. A stream's ids are ``<seq>-0``. Lua's numbers and a sorted set's scores hold it
exactly (2**53), and with the half until the year 2112 (2**52).
"""

__all__ = ["ANNOUNCE", "COMMON", "COUNT", "FIND", "HAS", "READ", "RENEW", "SINCE", "START"]

#: The beginning of every script: functions, and ARGV[1], the prefix.
COMMON = """
local p = ARGV[1]
local meta, index, tails, runs = p .. ':meta', p .. ':index', p .. ':tails', p .. ':runs'
local active, owners, due = p .. ':active', p .. ':owners', p .. ':due'
local function num(x) return string.format('%.0f', x) end
local function seq_of(id) return tonumber(string.match(id, '^(%d+)')) end
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function delete(name)
  redis.call('DEL', p .. ':log:' .. name, p .. ':info:' .. name, p .. ':run:' .. name, p .. ':events:' .. name)
end
-- The epoch, the seq of the last event, base, and whether there are runs.
local function current(candidate)
  local m = redis.call('HMGET', meta, 'epoch', 'seq', 'base', 'runs')
  local seq = tonumber(m[2] or 0)
  if m[1] and m[2] and m[3] then
    local has_runs = m[4] == m[1]
    if has_runs then
      if redis.call('EXISTS', tails, runs) == 2 then return m[1], seq, tonumber(m[3]), true end
    elseif seq == 0 or redis.call('EXISTS', tails) == 1 then
      return m[1], seq, tonumber(m[3]), false
    end
  end
  -- A part of the log was lost: delete the rest. A server without free memory refuses this first write, and so the
  -- whole script.
  redis.call('HSET', meta, 'epoch', candidate, 'seq', '0', 'base', '0')
  for _, key in ipairs({tails, runs, due}) do
    for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do delete(name) end
  end
  for _, name in ipairs(redis.call('HKEYS', active)) do delete(name) end
  for _, entry in ipairs(redis.call('XRANGE', index, '-', '+')) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'c' then delete(entry[2][i + 1]) end
    end
  end
  redis.call('DEL', index, tails, runs, active, owners, due)
  return candidate, 0, 0, false
end
-- A channel: its tail, and whether that is final; its stream, the number of events there, and whether all after
-- "trimmed" are; of a run also its owner, and whether events were lost.
local function find_channel(name, base, has_runs)
  local score = redis.call('ZSCORE', tails, name)
  -- All fields at once: a table to which they are added later is made anew for some of them.
  local c = {name = name, trimmed = base, stream = p .. ':log:' .. name, events = 0, bytes = 0, tail = false,
    closed = false, is_run = false, whole = false, owner = false, broken = false, is_broken = false, ending = false,
    is_changed = false}
  if not score then
    score = has_runs and redis.call('ZSCORE', runs, name)
    if not score then return c end
    c.is_run, c.stream = true, p .. ':events:' .. name
  end
  score = tonumber(score)
  c.tail = math.floor(score)
  c.closed = score > c.tail
  local has = redis.call('XLEN', c.stream)
  if c.is_run then
    local r = redis.call('HMGET', p .. ':run:' .. name, 'since', 'events', 'owner', 'broken')
    c.owner = r[3]
    c.whole = r[1] and r[2] == num(has)
    c.broken = r[4]
    if c.whole then c.trimmed, c.events = tonumber(r[1]), has end
  else
    local i = redis.call('HMGET', p .. ':info:' .. name, 'trimmed', 'bytes')
    c.whole = i[1] and has > 0
    if c.whole then c.trimmed, c.bytes, c.events = tonumber(i[1]), tonumber(i[2] or 0), has end
  end
  if not c.whole then c.trimmed = c.tail end
  return c
end
local function forget(name, score, base)
  local tail = math.floor(tonumber(score))
  delete(name)
  redis.call('ZREM', tails, name)
  if tail > base then base = tail end
  redis.call('HSET', meta, 'base', num(base))
  return base
end
"""

#: ARGV: prefix, epoch if there is none, seq, entries. Returns epoch, head, the entries of the index after that seq as
#: seq, channel, seq of the event before, ...; and, without entries or if the index begins later than that seq, the
#: channels with later events.
SINCE = (
    COMMON
    + """
local epoch, head, _, has_runs = current(ARGV[2])
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
  channels = redis.call('ZRANGEBYSCORE', tails, '(' .. num(after) .. '.5', '+inf')
  if has_runs then
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', runs, '(' .. num(after) .. '.5', '+inf')) do
      channels[#channels + 1] = name
    end
  end
end
return {epoch, num(head), entries, channels}
"""
)

#: ARGV: prefix, epoch if there is none, the client's epoch, its seq, up to which seq or '+', events of a channel,
#: max_age in us or 0, whether there are patterns, how many of the channels are not found by one, channels ... Returns
#: epoch, head, why the client can't resume (or ''), (channel, final seq) ... of those of them that are closed, and for
#: each channel its name and its events as id, fields.
READ = (
    COMMON
    + """
local epoch, head, base, has_runs = current(ARGV[2])
local after, upto, count, max_age = tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])
local channels, closed, named = {}, {}, 9 + tonumber(ARGV[9])
for i = 10, #ARGV do
  local c = find_channel(ARGV[i], base, has_runs)
  channels[#channels + 1] = c
  if c.closed and i <= named then
    closed[#closed + 1] = c.name
    closed[#closed + 1] = num(c.tail)
  end
end
local function is_unknown()
  if epoch ~= ARGV[3] or after > head then return true end
  if after == 0 or after == head then return false end
  local later = redis.call('XRANGE', index, '(' .. num(after) .. '-0', '+', 'COUNT', 1)[1]
  if not later then return false end
  for i = 1, #later[2], 2 do
    if later[2][i] == 'p' then return tonumber(later[2][i + 1]) < after end
  end
end
if is_unknown() then return {epoch, num(head), 'unknown', closed} end
if ARGV[8] == '1' and base > after then return {epoch, num(head), 'trimmed', closed} end
local cutoff = max_age > 0 and now() - max_age or 0
local out = {epoch, num(head), '', closed}
for _, c in ipairs(channels) do
  if c.trimmed > after then return {epoch, num(head), 'trimmed', closed} end
  local entries = {}
  if c.whole and c.tail > after then
    entries = redis.call('XRANGE', c.stream, '(' .. num(after) .. '-0', upto, 'COUNT', count)
  end
  if #entries > 0 then
    if seq_of(entries[1][1]) < cutoff and not c.is_run then return {epoch, num(head), 'trimmed', closed} end
    out[#out + 1] = c.name
    out[#out + 1] = entries
  end
end
return out
"""
)

#: ARGV: prefix, epoch if there is none, how many events or -1 for all, max_age in us or 0, whether there are patterns,
#: how many of the channels are not found by one, channels ... Returns epoch, the seq after which so many events come,
#: and (channel, final seq) ... of those that are closed.
START = (
    COMMON
    + """
local epoch, head, base, has_runs = current(ARGV[2])
local wanted, max_age, closed = tonumber(ARGV[3]), tonumber(ARGV[4]), {}
if wanted == 0 then
  for i = 7, #ARGV do
    local score = redis.call('ZSCORE', tails, ARGV[i]) or (has_runs and redis.call('ZSCORE', runs, ARGV[i]))
    local tail = score and math.floor(tonumber(score))
    if score and tonumber(score) > tail then
      closed[#closed + 1] = ARGV[i]
      closed[#closed + 1] = num(tail)
    end
  end
  return {epoch, num(head), closed}
end
-- A little later than in READ: an event that is not too old here is not too old when it is read.
local cutoff = max_age > 0 and now() - max_age + math.min(max_age / 100, 1000000) or 0
local start, newest, named = ARGV[5] == '1' and base or 0, {}, 6 + tonumber(ARGV[6])
local function first_of(c)
  if not c.whole then return c.trimmed end
  if c.is_run then return tonumber(redis.call('HGET', p .. ':run:' .. c.name, 'born') or c.trimmed) end
  local aged = cutoff > 0 and redis.call('XREVRANGE', c.stream, num(math.floor(cutoff) - 1) .. '-0', '-', 'COUNT', 1)[1]
  return aged and math.max(c.trimmed, seq_of(aged[1])) or c.trimmed
end
for i = 7, #ARGV do
  local c = find_channel(ARGV[i], base, has_runs)
  if c.closed and i <= named then
    closed[#closed + 1] = c.name
    closed[#closed + 1] = num(c.tail)
  end
  start = math.max(start, first_of(c))
  if wanted > 0 and c.whole then
    for _, entry in ipairs(redis.call('XREVRANGE', c.stream, '+', '-', 'COUNT', wanted + 1)) do
      newest[#newest + 1] = seq_of(entry[1])
    end
  end
end
table.sort(newest, function(a, b) return a > b end)
if newest[wanted + 1] and wanted > 0 then start = math.max(start, newest[wanted + 1]) end
return {epoch, num(start), closed}
"""
)

#: ARGV: prefix, epoch if there is none, epoch, seq. Returns nothing, or the event's channel and its fields. One that is
#: older than the index is found only if it is its channel's last.
FIND = (
    COMMON
    + """
local epoch, head, base, has_runs = current(ARGV[2])
if epoch ~= ARGV[3] then return {} end
local id, name = ARGV[4] .. '-0', nil
local entry = redis.call('XRANGE', index, id, id)[1]
for i = 1, entry and #entry[2] or 0, 2 do
  if entry[2][i] == 'c' then name = entry[2][i + 1] end
end
for _, key in ipairs(name and {} or {tails, runs}) do
  name = name or redis.call('ZRANGEBYSCORE', key, ARGV[4], ARGV[4] .. '.5', 'LIMIT', 0, 1)[1]
end
local c = name and find_channel(name, base, has_runs)
local found = c and c.whole and redis.call('XRANGE', c.stream, id, id)[1]
return found and {name, found[2]} or {}
"""
)

#: ARGV: prefix, epoch if there is none, channel, max_age in us or 0. Returns whether the log has the channel.
HAS = (
    COMMON
    + """
local _, _, base, has_runs = current(ARGV[2])
local c, max_age, time = find_channel(ARGV[3], base, has_runs), tonumber(ARGV[4]), now()
if not c.is_run then return c.tail and (max_age == 0 or c.tail >= time - max_age) and 1 or 0 end
local r = redis.call('HMGET', p .. ':run:' .. c.name, 'subject', 'remove_at')
return r[1] and (not r[2] or tonumber(r[2]) > time) and 1 or 0
"""
)

#: ARGV: prefix, epoch, new epoch. Begins a new epoch unless another process has: events of the old one are lost.
RENEW = (
    COMMON
    + """
local epoch, head, _, has_runs = current(ARGV[3])
if epoch == ARGV[2] then
  epoch = ARGV[3]
  redis.call('HSET', meta, 'epoch', epoch)
  if has_runs then redis.call('HSET', meta, 'runs', epoch) end
end
return {epoch, num(head)}
"""
)

#: ARGV: prefix, process, seconds, (channel, subscribers) ... Returns whether earlier announcements are still stored.
ANNOUNCE = (
    COMMON
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
    COMMON
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
