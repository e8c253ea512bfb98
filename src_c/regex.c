/* POSIX extended regular expressions; see glue.h. */

#include "glue.h"

#include <errno.h>
#include <locale.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

/*
 * The same calls as remctld's, and in its locale: in that of a Python program, which is the user's, a dot is a character
 * and not a byte, and classes and ranges hold more.
 */
int
regex_matches(const char *pattern, const char *text, char *message, size_t size)
{
    locale_t plain, before;
    regex_t regex;
    int status, compiled;

    plain = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    if (plain == (locale_t) 0) {
        snprintf(message, size, "%s", strerror(errno));
        return -1;
    }
    before = uselocale(plain);
    status = regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB);
    compiled = status == 0;
    if (compiled)
        status = regexec(&regex, text, 0, NULL, 0);
    if (status != 0 && status != REG_NOMATCH)
        regerror(status, &regex, message, size);
    if (compiled)
        regfree(&regex);
    uselocale(before);
    freelocale(plain);
    return status == 0 ? 1 : status == REG_NOMATCH ? 0 : -1;
}
