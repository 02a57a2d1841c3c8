/*
 * One prompt and its outcome, over as many connections as it takes: what a device does between "I have a question" and
 * "I have the answer". No IO and no clock: the caller opens and closes the link when it is told to, moves bytes both
 * ways, and says what time it is.
 *
 * Invariants: the outcome is decided once, within `deadline_ms` and a grace of the prompt's first publish, to which it
 * comes within as much or never; every wait has an end; the prompt is the same bytes with the same id on every attempt, so
 * that the gateway answers it once; a PUBACK leaves only after the frame was given to `say`; nothing is written outside
 * the caller's buffers.
 */
#ifndef TIDEGATE_ASK_H
#define TIDEGATE_ASK_H

#include "tidegate.h"

/* Longest topic: tg/v1/ and prompt, and three identifiers of 64 with their slashes. */
#define TG_TOPIC_BYTES 216
/* A boot number in 8 digits, a counter of up to 10, the dash, the end. */
#define TG_ID_BYTES 20
/* One step of a connection: opening it, CONNACK, SUBACK. Slow radio links take seconds. */
#define TG_STEP_MS 20000u
/* The gateway decides when the deadline comes; its word needs a moment to arrive. What `grace_ms` of 0 means. */
#define TG_GRACE_MS 2000u
/* Pause before the second attempt; each further one waits twice as long, up to TG_PAUSE_MS_MAX. */
#define TG_PAUSE_MS 250u
#define TG_PAUSE_MS_MAX 8000u

struct tg_settings {
    const char *gateway;      /* SITE/GATEWAY */
    const char *device;
    const char *user;         /* NULL: none */
    const char *password;
    const char *will_topic;   /* NULL: none; a topic of yours, not below tg/ */
    const char *text;         /* the question, UTF-8 */
    const char *task;         /* NULL: the gateway's default task */
    uint32_t max_tokens;      /* 0: the task's */
    uint32_t deadline_ms;     /* as the gateway counts it, from the prompt on; before it, for reaching the gateway */
    uint32_t grace_ms;        /* longest wait beyond the deadline for the gateway's word; 0: TG_GRACE_MS */
    uint16_t keep_alive_s;    /* not 0 */
    uint8_t attempts_max;     /* connections, and repetitions after `busy`; not 0 */
    bool stream;              /* `token` frames are wanted */
    bool local;               /* never leaves the gateway */
    bool bare;                /* plain text both ways: no id, so a repetition is a new prompt */
};

/* Also the exit status of a program. */
enum tg_outcome { TG_ANSWERED = 0, TG_SILENT = 1, TG_REFUSED = 2, TG_UNREACHABLE = 3, TG_USAGE = 64, TG_UNDECIDED = 99 };

/* What the caller does next. */
enum tg_wants {
    TG_WANTS_LINK, /* open a connection, then tg_ask_opened or tg_ask_closed */
    TG_WANTS_IO,   /* send tg_ask_out, receive into tg_ask_space */
    TG_WANTS_SHUT, /* send what is left if that goes at once, close the connection, then tg_ask_closed */
    TG_WANTS_TIME, /* nothing but time: there is no connection now */
    TG_WANTS_END   /* `outcome` and `why` are decided and no connection is open */
};

enum tg_said { TG_SAID_ACCEPTED, TG_SAID_TOKEN, TG_SAID_PROVISIONAL, TG_SAID_ANSWER, TG_SAID_ERROR };

/* A frame of our prompt: a CBOR map, or the text itself when the prompt was bare. It lives until the call returns. */
typedef void tg_say(void *with, enum tg_said what, const uint8_t *frame, size_t len);

enum tg_state { TG_RESTS, TG_OPENS, TG_CONNECTS, TG_SUBSCRIBES, TG_ASKS, TG_HOLDS, TG_LEAVES, TG_BREAKS, TG_ENDED };

struct tg_ask {
    enum tg_wants wants;
    enum tg_outcome outcome;
    const char *why;          /* what decided it, in words; never NULL once it is */
    uint16_t dropped;         /* messages that made no sense, or were not ours */
    /* From here on it is our own. */
    struct tg_settings set;
    const char *id;
    tg_say *say;
    void *with;
    struct tg_reader reader;
    uint8_t *out;
    size_t out_cap, out_len;
    uint32_t now, began, entered, sent_at, heard_at, pause_ms;
    enum tg_state state;
    uint8_t attempts;
    bool open, met, asked, acknowledged, pinged;
};

struct tg_buffers {
    uint8_t *in;              /* takes whole packets: its size less the topic and 9 bytes is the prompt's max_bytes */
    size_t in_cap;
    uint8_t *out;             /* takes the prompt's packet */
    size_t out_cap;
};

/* `set`'s texts, `id` and the buffers outlive the ask. False: the prompt does not fit `out`, or `in` is too small. */
bool tg_ask_init(struct tg_ask *ask, const struct tg_settings *set, const char *id, const struct tg_buffers *buffers);
/* Who is told of frames, and what time the ask begins at. Times are milliseconds of any clock and may wrap. */
void tg_ask_begin(struct tg_ask *ask, tg_say *say, void *with, uint32_t now);
void tg_ask_opened(struct tg_ask *ask, uint32_t now);
/* The connection is not there, or broke, or was shut as wanted. `why` is said if it was the last attempt. */
void tg_ask_closed(struct tg_ask *ask, const char *why, uint32_t now);
/* Bytes to send; tg_ask_sent says how many of them went. */
const uint8_t *tg_ask_out(const struct tg_ask *ask, size_t *len);
void tg_ask_sent(struct tg_ask *ask, size_t len, uint32_t now);
/* Where received bytes belong. No room: send first. */
uint8_t *tg_ask_space(struct tg_ask *ask, size_t *len);
void tg_ask_received(struct tg_ask *ask, size_t len, uint32_t now);
/* To be called at least every 100 ms: keep alive, deadlines, the next attempt. */
void tg_ask_tick(struct tg_ask *ask, uint32_t now);

/* "b3f1a204-7": a number drawn at boot and a counter. No other prompt of this device has it. */
void tg_make_id(char id[TG_ID_BYTES], uint32_t boot, uint32_t count);

/* ---- the pieces of a stream ---- */

/* Puts `token` frames together in a buffer of the caller. The answer has it all: this is only to be shown. */
struct tg_stream {
    char *buf;
    size_t cap, len;
    uint32_t attempt, next;   /* the attempt being shown, the piece it needs next */
    bool gap;                 /* pieces were lost or did not fit: what follows is not added */
};

void tg_stream_init(struct tg_stream *stream, char *buf, size_t cap);
/* True: `buf` grew, or began anew with a later attempt. */
bool tg_stream_add(struct tg_stream *stream, const uint8_t *frame, size_t len);
/* A text that may come in chunks, into `out`. False: it is no text or does not fit. */
bool tg_text(const struct tg_value *value, char *out, size_t cap, size_t *len);

#endif
