/*
 * The load client of benchmarks.answers: one loop over any number of streams, each with a producer of its own.
 *
 *     answers_client PORT PATH CLIENTS RAMP LIMIT
 *
 * requests PATH on 127.0.0.1 once for each client, evenly over RAMP seconds, and writes a line of JSON when all have had
 * an event, or LIMIT seconds after the last request:
 *
 *     clients, begun     how many there are, and how many have had an event
 *     refused, answer    how many were answered by something else than a chunked event stream; the first line of one
 *     p50, p99, most     ms from the start of the connection to the first event
 *
 * Then each line "measure SECONDS" of standard input is answered with {"armed": true}, and after so many seconds with
 *
 *     seconds, events, bytes
 *     p50, p99, most     ms from the making of an event to its receipt
 *     cpu                seconds of this process
 *     skipped            so far: events whose number is not the one after the last
 *     corrupt            so far: lines and events that are not as below
 *     ended              so far: streams
 *
 * The end of standard input ends it. The data of an event are its number, beginning with 0 in each stream, a space, the
 * time when it was made, a space, and nothing but x. Times are those of CLOCK_MONOTONIC in ns.
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

#define LINE_SIZE 1024
#define HEAD_SIZE 4096
#define BUFFER_SIZE 262144
#define BATCH 1024
#define SECOND 1000000000LL

enum phase { CONNECTING, HEAD, SIZE, SIZE_END, DATA, DATA_END, DATA_END_2, ENDED };

struct client {
    int fd;
    enum phase phase;
    uint64_t left;   /* of the chunk */
    int digits;      /* of its size */
    int line_length; /* what line holds: the beginning of one that is not all there */
    int has_data;    /* whether the event has its data line */
    int64_t made;    /* when that was made */
    int64_t next;    /* the number of the event that comes next */
    int64_t asked;   /* when its connection was begun */
    int64_t first;   /* when its first event came; 0: not yet */
    char line[LINE_SIZE];
};

static struct client *clients;
static int count, begun, with_event, refused, ended, epoll, request_size;
static char buffer[BUFFER_SIZE], request[1024], answer[200];
static int64_t *delays, delay_count, delay_room, bytes, events, skipped, corrupt;
static struct sockaddr_in address;

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

static void add_delay(int64_t delay) {
    if (delay_count == delay_room) {
        delay_room = delay_room ? delay_room * 2 : 65536;
        delays = realloc(delays, delay_room * sizeof *delays);
        if (!delays)
            fail("no memory for %lld delays", (long long)delay_room);
    }
    delays[delay_count++] = delay;
}

static int compare(const void *left, const void *right) {
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* In ms, of the delays in order: the smallest that so many hundredths of them do not exceed. */
static double percentile(int hundredths) {
    int64_t at = (delay_count * hundredths + 99) / 100 - 1;
    return delay_count ? delays[at < 0 ? 0 : at] / 1e6 : 0;
}

static void print_delays(void) {
    qsort(delays, delay_count, sizeof *delays, compare);
    printf("\"p50\": %.3f, \"p99\": %.3f, \"most\": %.3f", percentile(50), percentile(99), percentile(100));
    delay_count = 0;
}

static void leave(struct client *client) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, client->fd, NULL);
    close(client->fd);
    client->phase = ENDED;
}

static void refuse(struct client *client, const char *reason) {
    if (!refused++) {
        snprintf(answer, sizeof answer, "%.*s", (int)strcspn(reason, "\r\n\"\\"), reason);
    }
    leave(client);
}

/* A number and the space behind it; where it ends, or NULL. */
static const char *number(const char *at, const char *end, int64_t *value) {
    int digits = 0;
    *value = 0;
    while (at < end && *at >= '0' && *at <= '9' && digits++ < 18)
        *value = *value * 10 + (*at++ - '0');
    return digits && at < end && *at == ' ' ? at + 1 : NULL;
}

static void got_data(struct client *client, const char *data, int length) {
    int64_t which;
    const char *end = data + length, *rest = number(data, end, &which);
    rest = rest ? number(rest, end, &client->made) : NULL;
    while (rest && rest < end && *rest == 'x')
        rest++;
    if (rest != end || client->has_data) {
        corrupt++;
        return;
    }
    skipped += which != client->next;
    client->next = which + 1;
    client->has_data = 1;
}

static void got_line(struct client *client, const char *line, int length, int64_t at) {
    if (length && line[length - 1] == '\r')
        length--;
    if (!length) {
        if (client->has_data) {
            if (!client->first) {
                client->first = at;
                with_event++;
            }
            events++;
            add_delay(at - client->made);
        }
        client->has_data = 0;
    } else if (length > 6 && !memcmp(line, "data: ", 6)) {
        got_data(client, line + 6, length - 6);
    } else if (*line != ':' && strncmp(line, "id:", 3) && strncmp(line, "retry:", 6)) {
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

static void got_bytes(struct client *client, const char *at, size_t length, int64_t when) {
    const char *end = at + length;
    while (at < end) {
        switch (client->phase) {
        case SIZE: {
            static const char values[] = "0123456789abcdef";
            char digit = *at++;
            const char *value = memchr(values, tolower((unsigned char)digit), 16);
            if (value && client->digits++ < 8)
                client->left = client->left * 16 + (value - values);
            else if (digit == '\r' && client->digits)
                client->phase = SIZE_END;
            else
                fail("no chunk begins with byte %d", digit);
            break;
        }
        case SIZE_END:
            if (*at++ != '\n')
                fail("the size of a chunk does not end");
            client->digits = 0;
            client->phase = DATA;
            if (!client->left) {
                ended++;
                leave(client);
            }
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
        default:
            return;
        }
    }
}

static void connect_one(void) {
    struct client *client = clients + begun++;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    client->asked = now();
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event))
        fail("client %d: %s", begun, strerror(errno));
}

static void connected(struct client *client) {
    if (send(client->fd, request, request_size, MSG_NOSIGNAL) != request_size) {
        refuse(client, strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event);
    client->phase = HEAD;
}

/* The whole head is looked at before it is taken, so that what comes behind it stays where it is. */
static void read_head(struct client *client) {
    char head[HEAD_SIZE + 1];
    ssize_t length = recv(client->fd, head, HEAD_SIZE, MSG_PEEK);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        refuse(client, length ? strerror(errno) : "closed before the head");
        return;
    }
    head[length] = 0;
    char *end = strstr(head, "\r\n\r\n");
    if (!end) {
        if (length == HEAD_SIZE)
            refuse(client, "a head that is too large");
        return;
    }
    size_t size = end + 4 - head;
    end[2] = 0;
    if (strncmp(head, "HTTP/1.1 200 ", 13) || !strcasestr(head, "\r\ncontent-type: text/event-stream")
        || !strcasestr(head, "\r\ntransfer-encoding: chunked\r\n")) {
        refuse(client, head);
        return;
    }
    if (recv(client->fd, buffer, size, 0) != (ssize_t)size)
        fail("a head cannot be read");
    client->phase = SIZE;
}

static void read_client(struct client *client) {
    ssize_t length = recv(client->fd, buffer, BUFFER_SIZE, 0);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) {
        ended++;
        leave(client);
        return;
    }
    bytes += length;
    got_bytes(client, buffer, length, now());
}

/* Handle what is ready. *input is set when standard input is. */
static void turn(int milliseconds, int *input) {
    static struct epoll_event found[BATCH];
    int size = epoll_wait(epoll, found, BATCH, milliseconds);
    if (size < 0 && errno != EINTR)
        fail("epoll: %s", strerror(errno));
    for (int each = 0; each < size; each++) {
        struct client *client = found[each].data.ptr;
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

static void ramp(double seconds, double limit) {
    int input = 0;
    int64_t start = now(), length = seconds * SECOND, end = start + length + (int64_t)(limit * SECOND);
    while (with_event + refused < count && now() < end) {
        while (begun < count && now() >= start + length / count * begun)
            connect_one();
        turn(begun < count ? 1 : 20, &input);
        if (input)
            exit(0);
    }
    delay_count = 0;
    for (int each = 0; each < count; each++)
        if (clients[each].first)
            add_delay(clients[each].first - clients[each].asked);
    printf("{\"clients\": %d, \"begun\": %d, \"refused\": %d, \"answer\": \"%s\", ", count, with_event, refused, answer);
    print_delays();
    printf("}\n");
    fflush(stdout);
}

static void measure(const char *line) {
    double seconds;
    int input = 0;
    if (sscanf(line, "measure %lf", &seconds) != 1)
        fail("what is to be measured? %s", line);
    delay_count = events = bytes = 0;
    printf("{\"armed\": true}\n");
    fflush(stdout);
    int64_t start = now(), end = start + (int64_t)(seconds * SECOND), cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    while (now() < end)
        turn(1, &input);
    printf("{\"seconds\": %.6f, \"events\": %lld, \"bytes\": %lld, ", (now() - start) / 1e9, (long long)events,
           (long long)bytes);
    print_delays();
    printf(", \"skipped\": %lld, \"corrupt\": %lld, \"ended\": %d, \"cpu\": %.6f}\n", (long long)skipped,
           (long long)corrupt, ended, (read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int input = 0;
    if (argc != 6 || (count = atoi(argv[3])) < 1)
        fail("answers_client PORT PATH CLIENTS RAMP LIMIT");
    request_size = snprintf(request, sizeof request,
                            "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n", argv[2]);
    clients = calloc(count, sizeof *clients);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    ramp(atof(argv[4]), atof(argv[5]));
    for (;;) {
        turn(-1, &input);
        delay_count = 0;
        if (input) {
            char line[200] = ""; /* whole ones, as the other side writes */
            if (read(0, line, sizeof line - 1) <= 0)
                return 0;
            measure(line);
            input = 0;
        }
    }
}
