/*
 * The floor of benchmarks.fanout: one thread that sends the same bytes to all, without the other work of a server.
 *
 *     fanout_floor PORT
 *
 * listens on 127.0.0.1. GET /events is answered with a fixed head, and the stream stays. GET /publish?first=0&count=100
 * sends that many events, in one send() a client; with &each=1 in one send() for each event and client. The answer comes
 * when all is sent. GET /spin?on=1 starts a thread that computes, GET /spin?on=0 ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENT_SIZE 200
#define REQUEST_SIZE 4096
#define MOST 65536
#define BATCH 256

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                           "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n:ok\n\r\n";
static int streams[MOST], place[MOST], count, epoll; /* place: of a descriptor among the streams, plus one */
static volatile int spinning;
static pthread_t spinner;

static void stop(const char *what) {
    perror(what);
    exit(1);
}

static void *spin(void *nothing) {
    volatile unsigned long sum = 0;
    while (spinning)
        sum += 1;
    return nothing;
}

static void hang_up(int fd) {
    if (place[fd]) {
        int last = streams[--count];
        streams[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    close(fd);
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return; /* gone: its descriptor will tell */
        if (sent < 0) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
            continue;
        }
        data += sent;
        size -= sent;
    }
}

static size_t write_event(char *at, long number) {
    char data[EVENT_SIZE + 64];
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    int length = snprintf(data, sizeof data, "%ld %lld ", number, time.tv_sec * 1000000000LL + time.tv_nsec);
    memset(data + length, 'x', EVENT_SIZE - length);
    return sprintf(at, "%x\r\ndata: %.*s\n\n\r\n", EVENT_SIZE + 8, EVENT_SIZE, data);
}

static void publish(long first, long events, int each) {
    char *frames = malloc((EVENT_SIZE + 32) * (events + 1));
    size_t size = 0;
    for (long number = first; number < first + events; number++) {
        size_t length = write_event(frames + size, number);
        if (each)
            for (int at = 0; at < count; at++)
                send_all(streams[at], frames, length);
        else
            size += length;
    }
    for (int at = 0; at < count && size; at++)
        send_all(streams[at], frames, size);
    free(frames);
}

static void answer(int fd, const char *request) {
    static const char done[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n0\n";
    const char *query = strchr(request, '?');
    long first = 0, events = 0, on = 0;
    int each = 0;
    if (!strncmp(request, "GET /events ", 12)) {
        streams[count++] = fd;
        place[fd] = count;
        send_all(fd, head, sizeof head - 1);
        return;
    }
    if (query && !strncmp(request, "GET /publish?", 13)) {
        sscanf(query, "?first=%ld&count=%ld&each=%d", &first, &events, &each);
        publish(first, events, each);
    } else if (query && !strncmp(request, "GET /spin?", 10)) {
        sscanf(query, "?on=%ld", &on);
        if (on && !spinning) {
            spinning = 1;
            pthread_create(&spinner, NULL, spin, NULL);
        } else if (!on && spinning) {
            spinning = 0;
            pthread_join(spinner, NULL);
        }
    }
    send_all(fd, done, sizeof done - 1);
    hang_up(fd);
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        stop("accept");
}

/* Requests are short and their client writes them at once: one read has all of it. */
static void read_request(int fd) {
    char request[REQUEST_SIZE + 1];
    ssize_t length = recv(fd, request, REQUEST_SIZE, 0);
    if (length <= 0) {
        hang_up(fd);
        return;
    }
    request[length] = 0;
    if (!place[fd])
        answer(fd, request);
}

int main(int argc, char **argv) {
    struct epoll_event events[BATCH], event = {.events = EPOLLIN};
    struct sockaddr_in address = {.sin_family = AF_INET};
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        stop("listen");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    event.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int found = epoll_wait(epoll, events, BATCH, -1);
        if (found < 0 && errno != EINTR)
            stop("epoll_wait");
        for (int each = 0; each < found; each++) {
            if (events[each].data.fd == listener)
                accept_all(listener);
            else
                read_request(events[each].data.fd);
        }
    }
}
