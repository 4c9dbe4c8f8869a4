/* Sets TCP_NODELAY on every connection that a program accepts. To be preloaded into a program
 * that does not do so itself. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static int without_delay(int connection)
{
    int on = 1;
    if (connection >= 0)
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connection;
}

int accept(int listener, struct sockaddr *address, socklen_t *length)
{
    static int (*next)(int, struct sockaddr *, socklen_t *);
    if (!next)
        next = dlsym(RTLD_NEXT, "accept");
    return without_delay(next(listener, address, length));
}

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    static int (*next)(int, struct sockaddr *, socklen_t *, int);
    if (!next)
        next = dlsym(RTLD_NEXT, "accept4");
    return without_delay(next(listener, address, length, flags));
}
