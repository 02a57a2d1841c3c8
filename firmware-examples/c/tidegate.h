/*
 * Talk to Tidegate from any C99 device: the MQTT 3.1.1 packets that one needs, a prompt in CBOR, and the fields of an
 * answer. No allocation, no global state, no IO: bytes go in and out through buffers of the caller.
 *
 * Invariants: nothing is written past `cap` and nothing read past `len`; a function that returns a length returns 0
 * when the buffer is too small, and what it wrote then must not be sent; texts of packets and values are not
 * terminated and live in the buffer they came from.
 */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Deepest nesting of CBOR that is looked through; a deeper value is TG_BAD. */
#define TG_DEPTH_MAX 32

enum tg_status {
    TG_OK = 0,
    TG_MORE,      /* the packet is not whole yet: receive more bytes */
    TG_TOO_LARGE, /* the packet does not fit the buffer: its payload is dropped, acknowledge it all the same */
    TG_NOT_FOUND, /* the map has no such key */
    TG_BAD        /* the bytes break the protocol: close the connection, or drop the payload */
};

/* ---- MQTT 3.1.1: packets to send. Each returns the bytes written, 0 if they do not fit `cap`. ---- */

struct tg_connect {
    const char *client_id;    /* unique per broker */
    const char *user;         /* NULL: none */
    const char *password;     /* NULL: none; needs a user (MQTT 3.1.1 §3.1.2.9) */
    const char *will_topic;   /* NULL: no will; a topic below tg/ is refused */
    const char *will_text;    /* published there at QoS 1 when the connection ends without DISCONNECT */
    uint16_t keep_alive_s;    /* send something at least this often, 0: never */
    bool clean_session;       /* false: the broker keeps the subscription and what it owes while we are away */
};

size_t tg_connect(uint8_t *out, size_t cap, const struct tg_connect *with);
size_t tg_subscribe(uint8_t *out, size_t cap, uint16_t packet_id, const char *filter);

struct tg_publish {
    const char *topic;
    const uint8_t *payload;
    size_t payload_len;       /* the payload may stand in `out` behind the room for topic and 9 bytes */
    uint16_t packet_id;       /* not 0; the PUBACK names it */
    bool again;               /* the DUP flag: the same publish on a later connection, without its PUBACK so far */
};

/* QoS 1. */
size_t tg_publish(uint8_t *out, size_t cap, const struct tg_publish *what);
size_t tg_puback(uint8_t *out, size_t cap, uint16_t packet_id);
size_t tg_pingreq(uint8_t *out, size_t cap);
size_t tg_disconnect(uint8_t *out, size_t cap);

/* ---- MQTT 3.1.1: packets received ---- */

enum tg_type { TG_CONNACK = 2, TG_PUBLISH = 3, TG_PUBACK = 4, TG_SUBACK = 9, TG_PINGRESP = 13 };

struct tg_packet {
    enum tg_type type;
    uint8_t code;             /* CONNACK: 0 is accepted; SUBACK: the granted QoS, 0x80 is refused */
    uint8_t qos;              /* PUBLISH: 1 needs a PUBACK with `packet_id` */
    bool again;               /* PUBLISH: the DUP flag */
    uint16_t packet_id;       /* PUBLISH at QoS 1, PUBACK, SUBACK */
    const char *topic;        /* PUBLISH */
    size_t topic_len;
    const uint8_t *payload;   /* PUBLISH; NULL with TG_TOO_LARGE */
    size_t payload_len;       /* as it was sent, also with TG_TOO_LARGE; at most SIZE_MAX */
};

/* Puts packets together from whatever pieces the network gives. `cap` must hold a topic and 9 bytes at least. */
struct tg_reader {
    uint8_t *buf;             /* of the caller; a packet of at most `cap` bytes is read whole */
    size_t cap;
    size_t len;               /* bytes received and not yet consumed */
    size_t taken;             /* bytes of the packet given out last */
    uint32_t skip;            /* bytes still to come of a packet that does not fit */
};

void tg_reader_init(struct tg_reader *reader, uint8_t *buf, size_t cap);
/* Where the next received bytes belong, and how many fit. Ends the life of the last packet. */
uint8_t *tg_reader_space(struct tg_reader *reader, size_t *len);
/* `len` bytes were put there. */
void tg_reader_received(struct tg_reader *reader, size_t len);
/* The next packet: TG_OK, TG_MORE, TG_TOO_LARGE or TG_BAD. The packet lives until the next call on this reader. */
enum tg_status tg_reader_next(struct tg_reader *reader, struct tg_packet *packet);

/* ---- CBOR: a prompt ---- */

struct tg_prompt {
    const char *id;           /* [A-Za-z0-9_.-]{1,64}, unique per device for 24 h; NULL: none, no deduplication */
    const char *task;         /* NULL: the gateway's default task */
    const char *input;        /* UTF-8 */
    uint32_t max_tokens;      /* 0: the task's */
    uint32_t max_bytes;       /* largest frame that this device takes; 0: any */
    uint32_t deadline_ms;     /* time to live from receipt; 0: none */
    bool stream;              /* `token` frames are wanted */
    bool local;               /* never leaves the gateway */
};

size_t tg_prompt(uint8_t *out, size_t cap, const struct tg_prompt *prompt);

enum tg_op { TG_CANCEL, TG_FETCH };

/* For the topic `control`: cancel the prompt of this id, or send its outcome again. */
size_t tg_control(uint8_t *out, size_t cap, enum tg_op op, const char *id);

/* ---- CBOR: whatever else is to be written ---- */

enum tg_kind { TG_UINT, TG_NEGATIVE, TG_BYTES, TG_TEXT, TG_ARRAY, TG_MAP, TG_BOOL, TG_NULL, TG_FLOAT };

struct tg_writer {
    uint8_t *out;
    size_t cap;
    size_t len;
    bool full;                /* something did not fit: nothing is written any more */
};

struct tg_writer tg_writer(uint8_t *out, size_t cap);
/* The bytes written, 0 if they did not fit. */
size_t tg_written(const struct tg_writer *w);
/* Bytes as they are. */
void tg_put_raw(struct tg_writer *w, const void *bytes, size_t len);
void tg_put_byte(struct tg_writer *w, unsigned byte);
/* Major type and number in the shortest form: 0 a number, 1 a negative one, 4 an array of so many, 5 a map (§3.1). */
void tg_put_head(struct tg_writer *w, unsigned major, uint64_t value);
/* A map, an array, or a text in chunks whose length is not known yet, and its end. */
void tg_put_open(struct tg_writer *w, enum tg_kind kind);
void tg_put_close(struct tg_writer *w);
void tg_put_text(struct tg_writer *w, const char *text, size_t len);
void tg_put_bool(struct tg_writer *w, bool value);
void tg_put_null(struct tg_writer *w);
/* In the shortest form that holds it. */
void tg_put_float(struct tg_writer *w, double value);

/* ---- CBOR: fields of a frame ---- */

struct tg_value {
    enum tg_kind kind;
    uint64_t number;          /* TG_UINT; TG_BOOL: 0 or 1; TG_NEGATIVE: the value is -1 - number */
    double fraction;          /* TG_FLOAT, TG_UINT, TG_NEGATIVE */
    const char *text;         /* TG_TEXT, TG_BYTES; NULL when it comes in chunks: tg_open walks through them */
    size_t text_len;
    const uint8_t *raw;       /* the value as it is encoded: look into a TG_MAP with tg_find(raw, raw_len, …) */
    size_t raw_len;
};

/* `left` of what has no length of its own (RFC 8949 §3.2): it ends where it ends. */
#define TG_INDEFINITE UINT64_MAX

/* Walks through an array, the chunks of a text, or a map: key, value, key, value. TG_NOT_FOUND is the end. */
struct tg_items {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t left;
    bool pairs;               /* a map */
};

enum tg_status tg_open(const uint8_t *raw, size_t len, struct tg_items *items);
enum tg_status tg_item(struct tg_items *items, struct tg_value *value);

/* Whether this is one value, whole and with nothing behind it. A frame that is not is to be dropped. */
bool tg_whole(const uint8_t *raw, size_t len);
/* The value of a text key in a map: TG_OK, TG_NOT_FOUND or TG_BAD. A key in chunks (indefinite length) is not found. */
enum tg_status tg_find(const uint8_t *map, size_t len, const char *key, struct tg_value *value);
/* Whether a value is this text. */
bool tg_is(const struct tg_value *value, const char *text);

#endif
