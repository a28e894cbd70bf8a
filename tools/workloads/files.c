/* Known file activity: files DIR OPENS MISSING READS RENAMES UNLINKS. files.py tells the order and why. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAYLOAD 97

static const char *folder;

static const char *path(const char *name, int i)
{
    static char paths[2][512];
    static int turn;
    char *out = paths[turn ^= 1]; /* two at a time: rename needs both */
    snprintf(out, sizeof paths[0], "%s/%s%03d", folder, name, i);
    return out;
}

static void check(int ok)
{
    if (!ok) {
        perror("files");
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char buffer[PAYLOAD];
    int count[5], i, fd;

    check(argc == 7);
    folder = argv[1];
    for (i = 0; i < 5; i++)
        count[i] = atoi(argv[2 + i]);
    memset(buffer, 'x', PAYLOAD);

    for (i = 0; i < count[0]; i++) {
        check((fd = open(path("file", i), O_WRONLY | O_CREAT | O_TRUNC, 0600)) >= 0);
        check(write(fd, buffer, PAYLOAD) == PAYLOAD);
        close(fd);
    }
    for (i = 0; i < count[1]; i++)
        check(open(path("missing", i), O_RDONLY) < 0);
    for (i = 0; i < count[2]; i++) {
        check((fd = open(path("file", i), O_RDONLY)) >= 0);
        check(read(fd, buffer, PAYLOAD) == PAYLOAD);
        close(fd);
    }
    for (i = 0; i < count[3]; i++)
        check(rename(path("file", i), path("moved", i)) == 0);
    for (i = count[3]; i < count[3] + count[4]; i++)
        check(unlink(path("file", i)) == 0);
    return 0;
}
