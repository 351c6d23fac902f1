-- Deletes jobs that no worker holds; TAKE skips their ids on a queue. A job that is held does not run again.
-- ARGV: job ids...

for _, id in ipairs(ARGV) do
    local status, name, key, execution = unpack(read(id, 'status', 'origin', 'rate_limit_key', 'execution'))
    if status == 'started' and name and is_leased(id, name, execution) then
        redis.call('HDEL', 'rq:job:' .. id, 'again')
    elseif status then
        redis.call('DEL', 'rq:job:' .. id)
        redis.call('ZREM', 'rq:scheduled:' .. (name or ''), id)
        if key then
            redis.call('ZREM', waiting_of(key), id)
            release(key, id)
        end
    end
end
