"""A process of an earlier version, which knows neither closed channels nor runs: its scripts, as it ran them."""

from __future__ import annotations

import secrets
from typing import Any

import redis

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
  -- Nothing may be left of an older log of which a part was lost. A server without memory refuses this first write, and
  -- so the whole script.
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
-- The seq up to which a channel's events are gone; whether its log is as it was left.
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
_PUBLISH = (
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
  redis.call('HSET', info, 'trimmed', num(before), 'bytes', '0')  -- first, as a server without memory refuses this
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
_SINCE = (
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
_READ = (
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


class EarlierProcess:
    """Publishes and reads as that version did.

    :param url: of the server.
    :param prefix: of the keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._prefix = f"{{{prefix}}}"

    def _run(self, script: str, *args: str | bytes | int) -> Any:
        return self._client.register_script(script)([f"{self._prefix}:meta"], [self._prefix, *args])

    def publish(
        self, channel: str, data: str, *, max_events: int = 10_000, max_bytes: int = 1024 * 1024,
        max_channels: int = 10_000,
    ) -> str:  # fmt: skip
        """Publish, under these limits. The event's id."""
        limits = max_events, max_bytes, 86_400_000_000, max_channels, 10_000
        epoch, seq = self._run(_PUBLISH, secrets.token_hex(4), channel, f"data: {data}\n\n", *limits)
        return f"{epoch.decode()}-{int(seq)}"

    def changed(self, event_id: str) -> set[str]:
        """The channels that the index names after an id."""
        _, seq = event_id.split("-")
        return {name.decode() for name in self._run(_SINCE, secrets.token_hex(4), seq, 500)[2][1::3]}

    def read(self, event_id: str, *channels: str) -> list[str] | str:
        """The data of the events after an id, channel by channel, or why some may be missing."""
        epoch, seq = event_id.split("-")
        _, _, lost, *found = self._run(
            _READ, secrets.token_hex(4), epoch, seq, "+", 1000, 86_400_000_000, 0, *channels
        )  # fmt: skip
        bodies = [entry[1][1].decode() for entries in found[1::2] for entry in entries]
        return lost.decode() or [body.removeprefix("data: ").strip() for body in bodies]

    def close(self) -> None:
        self._client.close()
