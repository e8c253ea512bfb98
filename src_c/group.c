/* Who is in a group of this machine; see glue.h. */

#include "glue.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a group with all its members, or of an account; memory that is not written costs nothing. */
#define SIZE (16 * 1024 * 1024)

/* Besides 0, these say that there is no such name (POSIX lets them; glibc alone does not). */
static int
unless_absent(int status)
{
    return status == ENOENT || status == ESRCH ? 0 : status;
}

/* Python's grp and pwd modules take a name service that fails for one that does not know the name. */
int
group_has(const char *name, const char *user)
{
    struct group group, *found = NULL;
    struct passwd passwd, *account = NULL;
    char **member, *buffer;
    int status, answer = GROUP_UNKNOWN;

    buffer = malloc(SIZE);
    if (buffer == NULL)
        return -ENOMEM;
    status = unless_absent(getgrnam_r(name, &group, buffer, SIZE, &found));
    if (status == 0 && found != NULL) {
        answer = GROUP_WITHOUT;
        for (member = group.gr_mem; *member != NULL; member++)
            if (strcmp(*member, user) == 0)
                answer = GROUP_WITH;
        if (answer == GROUP_WITHOUT) {
            status = unless_absent(getpwnam_r(user, &passwd, buffer, SIZE, &account));
            if (status == 0 && account != NULL && account->pw_gid == group.gr_gid)
                answer = GROUP_WITH;
        }
    }
    free(buffer);
    return status == 0 ? answer : -status;
}
