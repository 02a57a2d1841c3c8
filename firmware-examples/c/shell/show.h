/* Tells a person, or a test, on stdout what comes: one line each, `\n` and `\` in texts escaped. */
#ifndef SHOW_H
#define SHOW_H

#include "ask.h"

/*
 * accepted POSITION | token TEXT | provisional ROUTE TEXT | answer ROUTE TEXT | error CODE MESSAGE
 * `with` is a `struct show`.
 */
void show_frame(void *with, enum tg_said what, const uint8_t *frame, size_t len);

/* Room for a streamed text to be shown while it grows. */
#ifndef SHOW_BYTES_MAX
#define SHOW_BYTES_MAX 512
#endif

struct show {
    bool bare;
    struct tg_stream stream;
    char text[SHOW_BYTES_MAX];
};

void show_init(struct show *show, bool bare);
/* end STATUS WHY, and how many messages were dropped. */
void show_end(const struct tg_ask *ask);

#endif
