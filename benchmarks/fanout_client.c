/*
 * The load client of benchmarks.fanout: any number of streams in one loop, as little work as can be.
 *
 *     fanout_client PORT CLIENTS [AT_ONCE]
 *
 * connects them all to /events on 127.0.0.1, with at most so many heads awaited at once, says how long it took, and then
 * answers a line of standard input, "expect FIRST COUNT SECONDS", with lines of JSON: {"armed": true}, and later what
 * came: when every client has got the events FIRST to FIRST + COUNT - 1, when the time is over, when all streams have
 * ended, or when nothing has come for QUIET. The end of standard input ends it.
 *
 * An event's data are EVENT_SIZE bytes: its number, a space, when it was published, a space, and nothing but x. They must
 * be the same bytes for all clients. Each client must get each event once and in order:
 *
 *     received    what came once and in order
 *     missing     what did not
 *     disorder    what came again, or after a later one
 *     stray       what was not expected at all, since the answer before
 *     corrupt     what is no event of ours, or not the same as another client got, since the answer before
 *     ended       streams that the server has ended so far
 *
 * Times are those of CLOCK_MONOTONIC in ns, read when recv has returned.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENT_SIZE 200
#define LINE_SIZE 512
#define HEAD_SIZE 4096
#define BUFFER_SIZE 262144
#define BATCH 1024
#define CONNECT_SECONDS 120
#define SECOND 1000000000LL
#define QUIET (10 * SECOND)
#define WRONG -1
#define STRAY -2

enum phase { CONNECTING, HEAD, SIZE, SIZE_END, DATA, DATA_END, DATA_END_2, TRAILER, ENDED };

struct client {
    int fd;
    enum phase phase;
    uint64_t left;     /* of the chunk */
    int digits;        /* of its size */
    int line_length;   /* what line holds: the beginning of one that is not all there */
    int has_data;      /* whether the event has its data line */
    int64_t which;     /* the event that it has the data of, or WRONG, or STRAY */
    int64_t next;      /* the event that comes next */
    char line[LINE_SIZE];
};

static struct client *clients;
static int count, ready, begun, epoll;
static char buffer[BUFFER_SIZE], filler[EVENT_SIZE];
static int64_t first, expected_events, received, disorder, stray, corrupt, ended, bytes;
static int64_t first_at, last_at, sent_first, deadline, cpu_before;
static int expecting;
static struct sockaddr_in address;
static char *samples; /* the data of each expected event, as the first client got them */
static char *sampled;

static int64_t read_clock(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * SECOND + at.tv_nsec;
}

static int64_t now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("{\"error\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    va_end(arguments);
    fflush(stdout);
    exit(1);
}

/* A number that has so many digits at the most and is followed by a space; where it ends, or NULL. */
static const char *number(const char *at, const char *end, int64_t *value) {
    int digits = 0;
    *value = 0;
    while (at < end && *at >= '0' && *at <= '9' && digits++ < 18)
        *value = *value * 10 + (*at++ - '0');
    return digits && at < end && *at == ' ' ? at + 1 : NULL;
}

/* Whose data they are. What another client got already need only be the same. */
static int64_t identify(const char *data) {
    int64_t which, sent;
    const char *end = data + EVENT_SIZE, *rest = number(data, end, &which);
    if (!rest)
        return WRONG;
    int wanted = expecting && which >= first && which < first + expected_events;
    char *sample = wanted ? samples + (which - first) * EVENT_SIZE : NULL;
    if (wanted && sampled[which - first])
        return memcmp(sample, data, EVENT_SIZE) ? WRONG : which;
    rest = number(rest, end, &sent);
    if (!rest || memcmp(rest, filler, end - rest))
        return WRONG;
    if (!wanted)
        return STRAY;
    sampled[which - first] = 1;
    memcpy(sample, data, EVENT_SIZE);
    if (which == first)
        sent_first = sent;
    return which;
}

static void got_event(struct client *client, int64_t at) {
    int64_t which = client->which;
    if (which == WRONG) {
        corrupt++;
    } else if (which == STRAY || !expecting || which < first || which >= first + expected_events) {
        stray++;
    } else if (which < client->next) {
        disorder++;
    } else {
        /* What is left out counts as received only when it comes, which is disorder. */
        client->next = which + 1;
        if (!received++)
            first_at = at;
        last_at = at;
    }
}

static int begins(const char *line, int length, const char *with) {
    int size = strlen(with);
    return length >= size && !memcmp(line, with, size);
}

static void got_line(struct client *client, const char *line, int length, int64_t at) {
    if (length && line[length - 1] == '\r')
        length--;
    if (!length) {
        if (client->has_data)
            got_event(client, at);
        client->has_data = 0;
    } else if (begins(line, length, "data:")) {
        line += 5, length -= 5;
        if (length && *line == ' ')
            line++, length--;
        if (client->has_data || length != EVENT_SIZE) {
            corrupt++;
            return;
        }
        client->which = identify(line);
        client->has_data = 1;
    } else if (!begins(line, length, ":") && !begins(line, length, "id:") && !begins(line, length, "event:")
               && !begins(line, length, "retry:")) {
        corrupt++;
    }
}

static void got_text(struct client *client, const char *text, size_t length, int64_t at) {
    const char *end = text + length;
    while (text < end) {
        const char *newline = memchr(text, '\n', end - text);
        size_t part = (newline ? newline : end) - text;
        if (client->line_length || !newline) {
            if (client->line_length + part > LINE_SIZE)
                fail("a line of more than %d bytes", LINE_SIZE);
            memcpy(client->line + client->line_length, text, part);
            client->line_length += part;
            if (newline) {
                got_line(client, client->line, client->line_length, at);
                client->line_length = 0;
            }
        } else {
            got_line(client, text, part, at);
        }
        text += part + (newline != NULL);
    }
}

static void leave(struct client *client) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, client->fd, NULL);
    close(client->fd);
    client->phase = ENDED;
    ended++;
}

static void got_bytes(struct client *client, const char *at, size_t length, int64_t when) {
    const char *end = at + length;
    while (at < end) {
        switch (client->phase) {
        case SIZE: {
            static const char values[] = "0123456789abcdef";
            char digit = *at++;
            const char *value = memchr(values, tolower((unsigned char)digit), 16);
            if (value && client->digits++ < 8) {
                client->left = client->left * 16 + (value - values);
            } else if (digit == '\r' && client->digits) {
                client->phase = SIZE_END;
            } else {
                fail("no chunk begins with byte %d", digit);
            }
            break;
        }
        case SIZE_END:
            if (*at++ != '\n')
                fail("the size of a chunk does not end");
            client->digits = 0;
            client->phase = client->left ? DATA : TRAILER;
            break;
        case DATA: {
            size_t part = (size_t)(end - at) < client->left ? (size_t)(end - at) : client->left;
            got_text(client, at, part, when);
            at += part;
            client->left -= part;
            if (!client->left)
                client->phase = DATA_END;
            break;
        }
        case DATA_END:
        case DATA_END_2:
            if (*at++ != (client->phase == DATA_END ? '\r' : '\n'))
                fail("a chunk does not end where it should");
            client->phase = client->phase == DATA_END ? DATA_END_2 : SIZE;
            break;
        case TRAILER:
            at = end; /* the stream has ended: nothing of ours follows */
            break;
        default:
            return;
        }
    }
}

static void connect_one(void) {
    struct client *client = clients + begun++;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event))
        fail("client %d: %s", begun, strerror(errno));
}

static void connected(struct client *client) {
    static const char request[] = "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
    if (send(client->fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1)
        fail("a client cannot connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event);
    client->phase = HEAD;
}

/* The whole head is looked at before it is taken, so that what comes behind it stays where it is. */
static void read_head(struct client *client) {
    char head[HEAD_SIZE + 1];
    ssize_t length = recv(client->fd, head, HEAD_SIZE, MSG_PEEK);
    if (length <= 0) {
        if (length < 0 && errno == EAGAIN)
            return;
        fail("a stream ended before its head");
    }
    head[length] = 0;
    char *end = strstr(head, "\r\n\r\n");
    if (!end) {
        if (length == HEAD_SIZE)
            fail("a head of more than %d bytes", HEAD_SIZE);
        return;
    }
    size_t size = end + 4 - head;
    end[2] = 0;
    if (strncmp(head, "HTTP/1.1 200 ", 13) || !strcasestr(head, "\r\ncontent-type: text/event-stream")
        || !strcasestr(head, "\r\ntransfer-encoding: chunked\r\n")) {
        head[strcspn(head, "\r\n")] = 0;
        fail("no chunked event stream: %s", head);
    }
    if (recv(client->fd, buffer, size, 0) != (ssize_t)size)
        fail("a head cannot be read");
    client->phase = SIZE;
    ready++;
    if (begun < count)
        connect_one();
}

static void read_client(struct client *client) {
    for (;;) {
        ssize_t length = recv(client->fd, buffer, BUFFER_SIZE, 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            return;
        if (length <= 0) {
            leave(client);
            return;
        }
        bytes += length;
        got_bytes(client, buffer, length, now());
        if (length < BUFFER_SIZE)
            return;
    }
}

static void turn(int milliseconds, int *input) {
    static struct epoll_event events[BATCH];
    int found = epoll_wait(epoll, events, BATCH, milliseconds);
    if (found < 0 && errno != EINTR)
        fail("epoll: %s", strerror(errno));
    for (int each = 0; each < found; each++) {
        struct client *client = events[each].data.ptr;
        if (!client)
            *input = 1;
        else if (client->phase == CONNECTING)
            connected(client);
        else if (client->phase == HEAD)
            read_head(client);
        else if (client->phase != ENDED)
            read_client(client);
    }
}

static void expect(const char *line) {
    double seconds;
    long long from, events;
    if (sscanf(line, "expect %lld %lld %lf", &from, &events, &seconds) != 3 || events < 0 || events > 100000)
        fail("what is expected? %s", line);
    first = from, expected_events = events;
    received = disorder = bytes = 0;
    first_at = last_at = sent_first = 0;
    free(samples), free(sampled);
    samples = calloc(events + 1, EVENT_SIZE), sampled = calloc(events + 1, 1);
    for (int each = 0; each < count; each++)
        clients[each].next = first;
    expecting = 1;
    deadline = now() + (int64_t)(seconds * SECOND);
    cpu_before = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    printf("{\"armed\": true}\n");
    fflush(stdout);
}

static void answer_when_over(void) {
    int64_t expected = expected_events * count, at = now();
    int complete = expected && received >= expected;
    if (!complete && at < deadline && (!received || at - last_at < QUIET) && !(ended && ended == count))
        return;
    expecting = 0;
    printf("{\"first\": %lld, \"last\": %lld, \"sent\": %lld, \"received\": %lld, \"missing\": %lld, \"disorder\": %lld, "
           "\"stray\": %lld, \"corrupt\": %lld, \"ended\": %lld, \"bytes\": %lld, \"cpu\": %.6f}\n",
           (long long)first_at, (long long)last_at, (long long)sent_first, (long long)received,
           (long long)(expected - received), (long long)disorder, (long long)stray, (long long)corrupt,
           (long long)ended, (long long)bytes, (read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu_before) / 1e9);
    fflush(stdout);
    stray = corrupt = 0;
}

int main(int argc, char **argv) {
    if (argc < 3 || (count = atoi(argv[2])) < 1)
        fail("fanout_client PORT CLIENTS [AT_ONCE]");
    int at_once = argc > 3 ? atoi(argv[3]) : 64, input = 0;
    memset(filler, 'x', sizeof filler);
    clients = calloc(count, sizeof *clients);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);

    int64_t start = now();
    while (begun < count && begun < at_once)
        connect_one();
    while (ready < count) {
        turn(1000, &input);
        if (input)
            return 0;
        if (now() - start > CONNECT_SECONDS * SECOND)
            fail("%d of %d clients have an answer after %d s", ready, count, CONNECT_SECONDS);
    }
    printf("{\"connected\": %d, \"seconds\": %.6f}\n", count, (now() - start) / 1e9);
    fflush(stdout);
    for (;;) {
        turn(expecting ? 50 : -1, &input);
        if (input) {
            char line[200] = ""; /* whole ones, as the other side writes */
            if (read(0, line, sizeof line - 1) <= 0)
                return 0;
            expect(line);
            input = 0;
        }
        if (expecting)
            answer_when_over();
    }
}
