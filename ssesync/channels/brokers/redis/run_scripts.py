"""The scripts of the Redis broker for runs. Their keys: see ``scripts.py``.

They begin a run, give it an owner, and remove it some time after its end. The append of its final event ends it. In
``due`` is the time at which a run is to be removed or, by other processes, to be ended. Times are microseconds of the
server's clock.
"""

from .append_scripts import REPAIR
from .scripts import COMMON

__all__ = ["ABANDONED", "BEGIN_RUN", "FIND_RUN", "OWN_RUN", "RENEW_OWNER"]

_RUNS = (
    COMMON
    + REPAIR
    + """
-- The seq of its last event is kept: a client with an id of this run must not go on in another one of its name.
local function remove(name)
  local score = redis.call('ZSCORE', runs, name)
  local removed = score and math.floor(tonumber(score)) + 1 or 0
  redis.call('DEL', p .. ':run:' .. name, p .. ':events:' .. name)  -- first: a server without free memory allows it
  if removed > tonumber(redis.call('HGET', meta, 'removed') or 0) then
    redis.call('HSET', meta, 'removed', num(removed))
  end
  if not redis.call('ZSCORE', tails, name) then redis.call('DEL', p .. ':info:' .. name) end
  redis.call('ZREM', runs, name)
  redis.call('ZREM', due, name)
  redis.call('HDEL', active, name)
end
-- The runs that are due: those that have ended are removed, the others returned.
local function sweep(time, most)
  local waiting = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', num(time), 'LIMIT', 0, most)) do
    local score = tonumber(redis.call('ZSCORE', runs, name) or 0.5)
    if score > math.floor(score) or redis.call('ZSCORE', tails, name) then
      remove(name)
    else
      waiting[#waiting + 1] = name
    end
  end
  return waiting
end
-- To be called before something is added. Its first write is refused by a server without memory.
local function prepare(epoch, has_runs, time)
  redis.call('HSET', meta, 'runs', epoch)
  if not has_runs then
    for _, name in ipairs(redis.call('ZRANGE', runs, 0, -1)) do remove(name) end
    redis.call('DEL', runs, active, owners, due)
    -- It is no channel's name. So runs are never empty, nor are tails, which tells a process of an earlier version that
    -- no channel was lost.
    redis.call('ZADD', runs, '0', '\\1')
    if redis.call('EXISTS', tails) == 0 then redis.call('ZADD', tails, '0', '\\1') end
  end
  repair(time)
end
"""
)

#: ARGV: prefix, epoch if there is none, name, owner, subject, how many of its runs at most or -1, whether one that has
#: ended is replaced, microseconds until a queued run has to be begun or 0, microseconds for which it is kept after its
#: end, (field, value) ... of the record. Returns "added" or "exists" and the record's fields; "channel" if a channel
#: has the name, "many" if there are too many.
BEGIN_RUN = (
    _RUNS
    + """
local epoch, last, base, has_runs = current(ARGV[2])
local name, owner, subject, most, wait = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[8])
local time, run = now(), p .. ':run:' .. name
local c = find_channel(name, base, has_runs)
if c.tail and not c.is_run then return {'channel'} end
if c.is_run then
  local r = redis.call('HMGET', run, 'state', 'subject', 'remove_at')
  if not r[1] and not c.closed then
    repair(time)
    redis.call('ZADD', due, num(time), name)
  end
  local is_kept = c.whole and r[1] and r[2] and tonumber(r[3] or time) > time
  if not c.closed or (is_kept and not (ARGV[7] == '1' and r[2] == subject)) then
    return {'exists', redis.call('HGETALL', run)}
  end
end
if most >= 0 then
  if has_runs then repair(time) end
  local count = 0
  for _, each in ipairs(has_runs and redis.call('HVALS', active) or {}) do
    if each == ':' .. subject then count = count + 1 end
  end
  if count >= most then return {'many'} end
end
prepare(epoch, has_runs, time)
if c.is_run then remove(name) end
local since = math.max(base, tonumber(redis.call('HGET', meta, 'removed') or 0))
if since > last then
  last = since
  redis.call('HSET', meta, 'seq', num(last))
end
redis.call('DEL', run, p .. ':events:' .. name)
redis.call('SET', p .. ':info:' .. name, 'a run')
redis.call('HSET', run, unpack(ARGV, 10))
redis.call('HSET', run, 'since', num(since), 'born', num(last), 'events', '0', 'keep', ARGV[9])
redis.call('ZADD', runs, num(last), name)
redis.call('HSET', active, name, ':' .. subject)
if wait > 0 then
  redis.call('HSET', run, 'begin_by', num(time + wait))
  redis.call('ZADD', due, num(time + wait), name)
end
if owner ~= '' then redis.call('ZADD', owners, 'NX', num(time + 5000000), owner) end
sweep(time, 20)
return {'added', redis.call('HGETALL', run)}
"""
)

#: ARGV: prefix, epoch if there is none, name, owner. Returns whether the run was queued.
OWN_RUN = (
    _RUNS
    + """
local epoch, _, base, has_runs = current(ARGV[2])
local name, owner, time = ARGV[3], ARGV[4], now()
local c = find_channel(name, base, has_runs)
if not c.is_run or c.closed or not c.whole then return 0 end
if redis.call('HGET', p .. ':run:' .. name, 'state') ~= 'queued' then return 0 end
repair(time)
redis.call('HSET', p .. ':run:' .. name, 'owner', owner, 'state', 'running')
redis.call('ZREM', due, name)
redis.call('ZADD', owners, 'NX', num(time + 5000000), owner)
return 1
"""
)

#: ARGV: prefix, epoch if there is none, name. Returns the fields of the record, nothing if there is no run.
FIND_RUN = (
    _RUNS
    + """
local epoch, _, base, has_runs = current(ARGV[2])
local c = find_channel(ARGV[3], base, has_runs)
if not c.is_run or not c.whole then return {} end
local r = redis.call('HMGET', p .. ':run:' .. ARGV[3], 'subject', 'remove_at')
if not r[1] or (r[2] and tonumber(r[2]) <= now()) then return {} end
return redis.call('HGETALL', p .. ':run:' .. ARGV[3])
"""
)

#: ARGV: prefix, epoch if there is none, owner, lease in us, whether it is a new one. Returns whether it is an owner.
RENEW_OWNER = (
    _RUNS
    + """
local epoch, _, _, has_runs = current(ARGV[2])
local time = now()
prepare(epoch, has_runs, time)
if ARGV[5] ~= '1' and not redis.call('ZSCORE', owners, ARGV[3]) then return 0 end
redis.call('ZADD', owners, num(time + tonumber(ARGV[4])), ARGV[3])
return 1
"""
)

#: ARGV: prefix, epoch if there is none, how many, owners that are alive ... Returns name, fields of the record, ... of
#: the runs that are to be ended. Of one whose record was evicted, there are no fields.
ABANDONED = (
    _RUNS
    + """
local epoch, _, _, has_runs = current(ARGV[2])
local time, gone, out = now(), {}, {}
if not has_runs then return out end
repair(time)
local alive = {}
for i = 4, #ARGV do alive[ARGV[i]] = true end
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', owners, '-inf', num(time))) do
  if not alive[owner] then gone[owner] = true end
end
for _, name in ipairs(next(gone) and redis.call('HKEYS', active) or {}) do
  local owner = redis.call('HGET', p .. ':run:' .. name, 'owner')
  if name ~= '' and (not owner or gone[owner]) then redis.call('ZADD', due, num(time), name) end
end
for owner in pairs(gone) do redis.call('ZREM', owners, owner) end
for _, name in ipairs(sweep(time, tonumber(ARGV[3]))) do
  out[#out + 1] = name
  out[#out + 1] = redis.call('HGETALL', p .. ':run:' .. name)
end
return out
"""
)
