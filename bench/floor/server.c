/* The least that a guest's server can cost: one thread, epoll, pidfds, OpenSSL.
 *
 * It does what cmappserver does for one application per connection, without any care: mutual TLS 1.3,
 * hello, launch, poll, and the push of `exited` in one write when the pidfd says that the child is gone.
 * It trusts its peer, knows no policy, keeps no receipt and captures no output. One line in holds one
 * request; the search for keys is a strstr. Numbers beside it are the price of everything else.
 *
 *     server KEYS PORT      KEYS has cert.pem, key.pem, ca.pem
 *
 * For every launch it prints "launch NANOSECONDS" (CLOCK_MONOTONIC, when the line was read).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 65536, ARGS = 64 };

struct peer {
    SSL *ssl; /* NULL once the manager is gone */
    int fd;
    pid_t pid; /* 0 unless the application lives */
    int pidfd;
    char name[65], run_id[37];
    int64_t since; /* nanoseconds, CLOCK_MONOTONIC */
    char *rest;    /* the beginning of a line whose end has not come, or NULL */
    size_t kept;
};

static int loop;
static char *no_environment[] = {NULL};
static posix_spawn_file_actions_t quiet;
static posix_spawnattr_t session;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* An application's event carries its peer's address with the lowest bit set. */
static void watch(int fd, void *peer, uintptr_t is_child)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uintptr_t)peer | is_child};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event))
        err(1, "epoll_ctl");
}

static void drop(struct peer *p)
{
    /* Not left to close(): a child that is still on its way to its exec holds a copy of the descriptor. */
    epoll_ctl(loop, EPOLL_CTL_DEL, p->fd, NULL);
    SSL_free(p->ssl);
    close(p->fd);
    free(p->rest);
    p->rest = NULL;
    p->ssl = NULL;
    if (p->pid)
        syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
    else
        free(p);
}

static void say(struct peer *p, const char *line, int length)
{
    SSL_write(p->ssl, line, length); /* a few hundred bytes: the socket's buffer takes them */
}

/* What follows "key": in the line. */
static char *value(char *line, const char *key)
{
    char *at = strstr(line, key);
    if (!at)
        return NULL;
    for (at += strlen(key); *at == ' ' || *at == ':'; at++)
        ;
    return at;
}

/* Copies the string at `from`, without its quotes, into what holds `size` bytes. */
static void copy(char *to, size_t size, const char *from)
{
    size_t n = from && *from == '"' ? strcspn(from + 1, "\"") : 0;
    n = n < size ? n : size - 1;
    memcpy(to, n ? from + 1 : "", n);
    to[n] = 0;
}

/* Reads ["a","b"] in place. No escapes but \" and \\ are known. */
static void read_argv(char *at, char **argv)
{
    int n = 0;
    while (at && *at && *at != ']' && n < ARGS - 1) {
        if (*at++ != '"')
            continue;
        char *out = argv[n++] = at;
        for (; *at && *at != '"'; at++)
            *out++ = *at == '\\' ? *++at : *at;
        at++;
        *out = 0;
    }
    argv[n] = NULL;
}

static int launch(struct peer *p, char *line, long id, char *out)
{
    char *argv[ARGS];
    p->since = now();
    printf("launch %lld\n", (long long)p->since);
    copy(p->name, sizeof p->name, value(line, "\"name\""));
    copy(p->run_id, sizeof p->run_id, value(line, "\"run_id\""));
    read_argv(value(line, "\"argv\""), argv); /* last: it writes into the line */
    if (!argv[0] || posix_spawn(&p->pid, argv[0], &quiet, &session, argv, no_environment))
        return sprintf(out, "{\"type\":\"refused\",\"code\":\"not-found\",\"text\":\"\",\"id\":%ld}\n", id);
    p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    watch(p->pidfd, p, 1);
    return sprintf(out, "{\"type\":\"launched\",\"id\":%ld,\"run_id\":\"%s\",\"pid\":%d}\n", id, p->run_id, p->pid);
}

/* Reads a file of the application's in /proc, as a string. */
static char *look(pid_t pid, const char *file)
{
    static char path[64], text[1024];
    sprintf(path, "/proc/%d/%s", pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

/* State, pid, uptime, processor time, memory and the look for children that cmappserver's promise costs. */
static int report(struct peer *p, long id, char *out)
{
    unsigned long user = 0, system = 0;
    long pages = 0;
    char children[64], *at = strrchr(look(p->pid, "stat"), ')');
    if (at)
        sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld",
               &user, &system, &pages);
    sprintf(children, "task/%d/children", p->pid);
    int processes = *look(p->pid, children) ? 2 : 1;
    return sprintf(out,
                   "{\"type\":\"report\",\"id\":%ld,\"run\":{\"name\":\"%s\",\"run_id\":\"%s\",\"state\":\"running\","
                   "\"pid\":%d,\"uptime\":%.3f,\"cpu\":%.2f,\"memory\":%ld,\"processes\":%d}}\n",
                   id, p->name, p->run_id, p->pid, (double)(now() - p->since) / 1e9, (double)(user + system) / 100,
                   pages * 4096, processes);
}

static void answer(struct peer *p, char *line)
{
    char out[1024], *type = value(line, "\"type\""), *number = value(line, "\"id\"");
    long id = number ? strtol(number, NULL, 10) : 0;
    int length = 0;
    if (!type)
        return;
    if (!strncmp(type, "\"hello", 6))
        length = sprintf(out, "{\"type\":\"welcome\",\"id\":%ld,\"version\":1,\"software\":\"floor\"}\n", id);
    else if (!strncmp(type, "\"launch", 7))
        length = launch(p, line, id, out);
    else if (!strncmp(type, "\"poll", 5))
        length = report(p, id, out);
    else if (!strncmp(type, "\"acknowledge", 12))
        length = sprintf(out, "{\"type\":\"done\",\"id\":%ld}\n", id);
    if (length)
        say(p, out, length);
}

static void ended(struct peer *p)
{
    char out[512];
    int status = 0;
    waitpid(p->pid, &status, 0);
    if (p->ssl) {
        double lasted = (double)(now() - p->since) / 1e9, wall = (double)time(NULL);
        int exited = WIFEXITED(status);
        say(p, out,
            sprintf(out,
                    "{\"type\":\"exited\",\"receipt\":{\"name\":\"%s\",\"run_id\":\"%s\",\"outcome\":{\"type\":\"%s\","
                    "\"%s\":%d},\"reason\":\"itself\",\"forced\":false,\"started\":%.3f,\"ended\":%.3f,"
                    "\"lasted\":%.3f}}\n",
                    p->name, p->run_id, exited ? "exited" : "signaled", exited ? "code" : "signal",
                    exited ? WEXITSTATUS(status) : WTERMSIG(status), wall - lasted, wall, lasted));
    }
    epoll_ctl(loop, EPOLL_CTL_DEL, p->pidfd, NULL);
    close(p->pidfd);
    p->pid = 0;
    if (!p->ssl)
        free(p);
}

static void readable(struct peer *p)
{
    static char buffer[LINE];
    ERR_clear_error(); /* SSL_get_error() looks at what other peers left behind */
    if (!SSL_is_init_finished(p->ssl)) {
        int done = SSL_accept(p->ssl);
        if (done != 1) {
            if (SSL_get_error(p->ssl, done) != SSL_ERROR_WANT_READ)
                drop(p);
            return;
        }
    }
    size_t have = p->kept;
    memcpy(buffer, p->rest ? p->rest : "", have);
    for (;;) {
        int n = SSL_read(p->ssl, buffer + have, (int)(LINE - 1 - have));
        if (n <= 0 && SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_READ)
            break;
        if (n <= 0 || have + (size_t)n >= LINE - 1) {
            drop(p);
            return;
        }
        have += (size_t)n;
        char *line = buffer, *end;
        while ((end = memchr(line, '\n', have - (size_t)(line - buffer)))) {
            *end = 0;
            answer(p, line);
            line = end + 1;
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
    }
    free(p->rest);
    p->rest = have ? memcpy(malloc(have), buffer, have) : NULL;
    p->kept = have;
}

static void welcome_peers(SSL_CTX *tls, int listener)
{
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = calloc(1, sizeof *p);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        p->fd = fd;
        p->ssl = SSL_new(tls);
        SSL_set_fd(p->ssl, fd);
        SSL_set_accept_state(p->ssl);
        watch(fd, p, 0);
    }
}

static int choose(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *in, unsigned int size,
                  void *unused)
{
    (void)ssl, (void)unused;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, length, (const unsigned char *)"\7cmapp/1", 8, in, size) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *load(const char *keys)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (chdir(keys) || SSL_CTX_use_certificate_chain_file(tls, "cert.pem") != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, "key.pem", SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(tls, "ca.pem", NULL) != 1)
        errx(1, "cannot load the keys in %s", keys);
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_alpn_select_cb(tls, choose, NULL);
    SSL_CTX_set_num_tickets(tls, 0);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    return tls;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: server KEYS PORT");
    SSL_CTX *tls = load(argv[1]);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(argv[2])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024))
        err(1, "127.0.0.1:%s", argv[2]);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    posix_spawn_file_actions_init(&quiet);
    for (int fd = 0; fd < 3; fd++)
        posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_RDWR, 0);
    posix_spawnattr_init(&session);
    posix_spawnattr_setflags(&session, POSIX_SPAWN_SETSID);
    loop = epoll_create1(EPOLL_CLOEXEC);
    watch(listener, NULL, 0);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(loop, events, 256, -1);
        for (int i = 0; i < n; i++) {
            uintptr_t who = (uintptr_t)events[i].data.u64;
            struct peer *p = (struct peer *)(who & ~(uintptr_t)1);
            if (!p)
                welcome_peers(tls, listener);
            else if (who & 1)
                ended(p);
            else
                readable(p);
        }
    }
}
