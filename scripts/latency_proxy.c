/* A TCP proxy on loopback that makes a link slow: every byte is held back for half a round trip
 * in each direction, and optionally the rate is limited. Linux only (epoll, timerfd).
 *
 * build: cc -O2 -o latency_proxy latency_proxy.c
 * usage: latency_proxy LISTEN_PORT TARGET_PORT RTT_MS [MBIT]
 *
 * LISTEN_PORT 0 takes any free port. The first line on standard output is the port. Each line on
 * standard input, which must be a pipe or a terminal, is answered by one line with two numbers:
 * the bytes read so far from clients, and from the target. The proxy exits when standard input
 * ends, so it never outlives the program that started it.
 *
 * One thread and one epoll loop. Each direction of each connection is a queue of chunks, and a
 * chunk leaves when it is due. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK = 256 * 1024,
    PACED_CHUNK = 16 * 1024, /* with a limited rate: small enough to pace evenly */
    HELD_MAX = 128 << 20,    /* bytes one direction may hold before it stops reading */
    EVENTS = 64,
    BACKLOG = 128,
};

typedef struct chunk {
    struct chunk *next;
    int64_t due; /* monotonic nanoseconds */
    size_t size, sent;
    char bytes[];
} chunk;

/* One end of a connection. What is read from `fd` waits in the queue, then goes to peer->fd. */
typedef struct side {
    int fd;
    struct side *peer;
    struct side *next; /* all sides, each beside its peer */
    chunk *head, *tail;
    long held;
    int64_t free_at;   /* when the limited link can take the next byte */
    uint64_t *counted; /* the total this direction adds to */
    int eof;           /* nothing more comes from fd */
    int write_blocked; /* fd takes no more for now */
    int read_paused;   /* HELD_MAX reached */
    int shut;          /* all is delivered to peer->fd, which was told so */
    int dead;
} side;

static int epoll_fd;
static int64_t half_trip; /* nanoseconds */
static double ns_per_byte; /* 0: as fast as it goes */
static uint64_t from_clients, from_target;
static side *all_sides;
static char buffer[CHUNK];

/* What an epoll event is about, when it is none of the sides. */
static char listener, timer, control;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void *zeroed(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) die("calloc");
    return memory;
}

static void watch(int fd, void *about) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = about};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

/* Ask epoll for what the state of the side makes useful. */
static void arm(side *s) {
    struct epoll_event event = {.data.ptr = s};
    if (!s->read_paused && !s->eof) event.events |= EPOLLIN;
    if (s->write_blocked) event.events |= EPOLLOUT;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event);
}

static void set_option(int fd, int option) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, option, &one, sizeof one);
}

static int64_t due_time(side *s, size_t size) {
    int64_t due = now() + half_trip;
    if (ns_per_byte > 0) {
        if (s->free_at > due) due = s->free_at;
        s->free_at = due + (int64_t)(size * ns_per_byte);
    }
    return due;
}

static void enqueue(side *s, const char *bytes, size_t size) {
    chunk *c = malloc(sizeof *c + size);
    if (!c) die("malloc");
    *c = (chunk){.due = due_time(s, size), .size = size};
    memcpy(c->bytes, bytes, size);
    if (s->tail) s->tail->next = c;
    else s->head = c;
    s->tail = c;
    s->held += size;
    *s->counted += size;
}

static void read_side(side *s) {
    ssize_t size = read(s->fd, buffer, ns_per_byte > 0 ? PACED_CHUNK : CHUNK);
    set_option(s->fd, TCP_QUICKACK); /* the kernel forgets it after a while */
    if (size > 0) {
        enqueue(s, buffer, size);
        if (s->held > HELD_MAX) {
            s->read_paused = 1;
            arm(s);
        }
    } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
        s->eof = 1;
        arm(s);
    }
}

/* Write what is due to the peer. Returns 0 when the peer takes no more for now, or never. */
static int write_due(side *s) {
    side *to = s->peer;
    int64_t time = now();
    while (s->head && s->head->due <= time) {
        chunk *c = s->head;
        ssize_t size = write(to->fd, c->bytes + c->sent, c->size - c->sent);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0 && errno == EAGAIN) {
            if (!to->write_blocked) {
                to->write_blocked = 1;
                arm(to);
            }
            return 0;
        }
        if (size < 0) {
            s->dead = to->dead = 1;
            return 0;
        }
        c->sent += size;
        s->held -= size;
        if (c->sent < c->size) continue;
        s->head = c->next;
        if (!s->head) s->tail = NULL;
        free(c);
    }
    return 1;
}

static void flush(side *s) {
    if (!write_due(s)) return;
    if (s->peer->write_blocked) {
        s->peer->write_blocked = 0;
        arm(s->peer);
    }
    if (s->read_paused && s->held < HELD_MAX / 2) {
        s->read_paused = 0;
        arm(s);
    }
    if (s->eof && !s->head && !s->shut) {
        s->shut = 1;
        shutdown(s->peer->fd, SHUT_WR);
    }
}

static void side_event(side *s, uint32_t events) {
    /* A hang-up is read to its end even when paused: what the kernel still holds is bounded. */
    int hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (!s->eof && (hung_up || ((events & EPOLLIN) && !s->read_paused))) read_side(s);
    if (events & EPOLLERR) s->dead = s->peer->dead = 1;
    /* Hang-ups are reported again and again: once all is read, there is nothing left to hear. */
    if (hung_up && s->eof) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static side *add_side(int fd, uint64_t *counted) {
    side *s = zeroed(sizeof *s);
    s->fd = fd;
    s->counted = counted;
    set_option(fd, TCP_NODELAY);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    watch(fd, s);
    return s;
}

static void accept_client(int listen_fd, int target_port) {
    struct sockaddr_in address = loopback(target_port);
    int client_fd = accept(listen_fd, NULL, NULL);
    if (client_fd < 0) return;
    int target_fd = socket(AF_INET, SOCK_STREAM, 0);
    if (target_fd < 0 || connect(target_fd, (struct sockaddr *)&address, sizeof address)) {
        if (target_fd >= 0) close(target_fd);
        close(client_fd);
        return;
    }
    side *client = add_side(client_fd, &from_clients), *target = add_side(target_fd, &from_target);
    client->peer = target;
    target->peer = client;
    client->next = target;
    target->next = all_sides;
    all_sides = client;
}

static void free_side(side *s) {
    close(s->fd);
    while (s->head) {
        chunk *c = s->head;
        s->head = c->next;
        free(c);
    }
    free(s);
}

/* Deliver everything that is due and drop what is over; returns when the next chunk is due. */
static int64_t flush_all(void) {
    int64_t next = INT64_MAX;
    for (side *s = all_sides; s; s = s->next) {
        if (!s->dead) flush(s);
        if (s->head && !s->peer->write_blocked && s->head->due < next) next = s->head->due;
    }
    for (side **link = &all_sides; *link;) {
        side *s = *link, *t = s->next; /* a client, and its peer */
        if (s->dead || (s->shut && t->shut)) {
            *link = t->next;
            free_side(s);
            free_side(t);
        } else {
            link = &t->next;
        }
    }
    return next;
}

static void set_timer(int timer_fd, int64_t due) {
    struct itimerspec at = {0}; /* disarmed */
    if (due != INT64_MAX) {
        at.it_value.tv_sec = due / 1000000000;
        at.it_value.tv_nsec = due % 1000000000;
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void answer_control(void) {
    char line[256];
    ssize_t size = read(STDIN_FILENO, line, sizeof line);
    if (size == 0 || (size < 0 && errno != EINTR)) exit(0);
    for (ssize_t i = 0; i < size; i++)
        if (line[i] == '\n') printf("%" PRIu64 " %" PRIu64 "\n", from_clients, from_target);
    fflush(stdout);
}

static int listen_on(int port) {
    struct sockaddr_in address = loopback(port);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, BACKLOG)) die("bind");
    if (getsockname(fd, (struct sockaddr *)&address, &length)) die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **words) {
    if (count < 4) {
        fprintf(stderr, "usage: latency_proxy LISTEN_PORT TARGET_PORT RTT_MS [MBIT]\n");
        return 2;
    }
    int target_port = atoi(words[2]);
    half_trip = (int64_t)(atof(words[3]) * 1e6 / 2);
    if (count > 4) ns_per_byte = 8e3 / atof(words[4]);

    signal(SIGPIPE, SIG_IGN); /* a write to a connection that is gone is an ordinary error */
    epoll_fd = epoll_create1(0);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (epoll_fd < 0 || timer_fd < 0) die("epoll or timerfd");
    int listen_fd = listen_on(atoi(words[1]));
    watch(listen_fd, &listener);
    watch(timer_fd, &timer);
    watch(STDIN_FILENO, &control);

    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            void *about = events[i].data.ptr;
            uint64_t expirations;
            if (about == &listener) accept_client(listen_fd, target_port);
            else if (about == &control) answer_control();
            else if (about != &timer) side_event(about, events[i].events);
            else if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                die("timer");
        }
        set_timer(timer_fd, flush_all());
    }
}
