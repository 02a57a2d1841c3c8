/* What a device of this folder can be told: the defaults are a board's settings, `key=value` changes one. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "ask.h"

#define DEVICE_HOST "192.0.2.10"          /* the gateway's address */
#define DEVICE_PORT 1883                  /* 8883 with TLS */
#define DEVICE_SERVER "gateway.example"   /* the name in the gateway's certificate (TLS only) */
#define DEVICE_GATEWAY "site/gateway"
#define DEVICE_NAME "press-7"
#define DEVICE_TEXT "turn off the lights in the packing hall"
#define DEVICE_DEADLINE_MS 30000u
#define DEVICE_GRACE_MS TG_GRACE_MS       /* a slow or crowded link needs more */
#define DEVICE_KEEP_ALIVE_S 30
#define DEVICE_ATTEMPTS_MAX 5
#ifndef DEVICE_IN_BYTES
#define DEVICE_IN_BYTES 4096              /* largest packet that is taken */
#define DEVICE_OUT_BYTES 1024             /* prompt, topic and a PUBACK */
#endif

struct device_settings {
    struct tg_settings ask;
    const char *host;
    const char *port;
    const char *server;
    const char *id;                       /* NULL: of boot number and counter */
    size_t in_bytes;                      /* at most DEVICE_IN_BYTES */
};

void settings_default(struct device_settings *set);
/* `key=value`; the text must outlive the settings. False: no such key, or a value that is none. */
bool settings_take(struct device_settings *set, const char *pair);

#endif
