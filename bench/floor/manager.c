/* The least that a manager can cost: one blocking TLS socket in C.
 *
 * It does what cmappmgr does, with one word for a log and no syslog, retries or acknowledgement: mutual TLS 1.3, the guest's
 * name checked, hello, launch, a poll every five seconds, and it is gone the instant `exited` arrives, with
 * the application's code or 128 + signal.
 *
 *     manager KEYS ADDRESS PORT COMMAND [ARG...]      ADDRESS: IPv4, as in the guest's certificate
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static SSL *join(const char *keys, const char *address, const char *port)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (chdir(keys) || SSL_CTX_use_certificate_chain_file(tls, "cert.pem") != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, "key.pem", SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(tls, "ca.pem", NULL) != 1)
        errx(125, "cannot load the keys in %s", keys);
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_alpn_protos(tls, (const unsigned char *)"\7cmapp/1", 8);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, address, &to.sin_addr);
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        err(123, "%s:%s", address, port);
    SSL *ssl = SSL_new(tls);
    SSL_set_fd(ssl, fd);
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address);
    if (SSL_connect(ssl) != 1)
        errx(122, "the handshake failed");
    return ssl;
}

static void say(SSL *ssl, const char *line)
{
    if (SSL_write(ssl, line, (int)strlen(line)) <= 0)
        errx(123, "the server is gone");
}

static void launch(SSL *ssl, char **command)
{
    char line[8192];
    int n = sprintf(line,
                    "{\"type\":\"launch\",\"id\":2,\"name\":\"floor-%d\","
                    "\"run_id\":\"00000000-0000-4000-8000-%012d\",\"argv\":[",
                    getpid(), getpid());
    for (int i = 0; command[i]; i++) {
        n += sprintf(line + n, "%s\"", i ? "," : "");
        for (const char *c = command[i]; *c && n < 8000; c++) {
            if (*c == '"' || *c == '\\')
                line[n++] = '\\';
            line[n++] = *c;
        }
        line[n++] = '"';
    }
    strcpy(line + n, "]}\n");
    say(ssl, line);
}

int main(int argc, char **argv)
{
    char buffer[65536], *found;
    size_t have = 0;
    int polls = 2;
    if (argc < 5)
        errx(125, "usage: manager KEYS ADDRESS PORT COMMAND [ARG...]");
    SSL *ssl = join(argv[1], argv[2], argv[3]);
    say(ssl, "{\"type\":\"hello\",\"id\":1,\"versions\":[1],\"software\":\"floor\"}\n");
    launch(ssl, argv + 4);
    for (;;) {
        struct pollfd wait = {.fd = SSL_get_fd(ssl), .events = POLLIN};
        if (!SSL_pending(ssl) && poll(&wait, 1, 5000) == 0) {
            char line[64];
            sprintf(line, "{\"type\":\"poll\",\"id\":%d}\n", ++polls);
            say(ssl, line);
            continue;
        }
        int n = SSL_read(ssl, buffer + have, (int)(sizeof buffer - 1 - have));
        if (n <= 0)
            errx(123, "the server is gone");
        buffer[have += (size_t)n] = 0;
        if (strstr(buffer, "\"refused\""))
            errx(122, "%s", buffer);
        if ((found = strstr(buffer, "\"exited\"")) && strchr(found, '\n')) {
            char *code = strstr(found, "\"code\":"), *number = strstr(found, "\"signal\":");
            int end = code ? atoi(code + 7) : number ? 128 + atoi(number + 9) : 121;
            dprintf(2, "exit code %d\n", end);
            _exit(end);
        }
        char *end = strrchr(buffer, '\n');
        if (end)
            memmove(buffer, end + 1, have -= (size_t)(end + 1 - buffer));
    }
}
