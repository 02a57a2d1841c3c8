#include "settings.h"

#include <stdlib.h>
#include <string.h>

void settings_default(struct device_settings *set)
{
    memset(set, 0, sizeof *set);
    set->host = DEVICE_HOST;
    set->port = NULL;
    set->server = DEVICE_SERVER;
    set->in_bytes = DEVICE_IN_BYTES;
    set->ask.gateway = DEVICE_GATEWAY;
    set->ask.device = DEVICE_NAME;
    set->ask.text = DEVICE_TEXT;
    set->ask.deadline_ms = DEVICE_DEADLINE_MS;
    set->ask.grace_ms = DEVICE_GRACE_MS;
    set->ask.keep_alive_s = DEVICE_KEEP_ALIVE_S;
    set->ask.attempts_max = DEVICE_ATTEMPTS_MAX;
}

static bool take_text(struct device_settings *set, const char *key, size_t len, const char *value)
{
    const struct { const char *key; const char **to; } texts[] = {
        {"host", &set->host}, {"port", &set->port}, {"server", &set->server}, {"id", &set->id},
        {"gateway", &set->ask.gateway}, {"device", &set->ask.device}, {"user", &set->ask.user},
        {"password", &set->ask.password}, {"will", &set->ask.will_topic}, {"text", &set->ask.text},
        {"task", &set->ask.task},
    };
    size_t i;
    for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strlen(texts[i].key) == len && strncmp(texts[i].key, key, len) == 0) {
            *texts[i].to = value;
            return true;
        }
    }
    return false;
}

static bool is_key(const char *key, size_t len, const char *name)
{
    return strlen(name) == len && strncmp(name, key, len) == 0;
}

static bool take_number(struct device_settings *set, const char *key, size_t len, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);
    if (end == value || *end != '\0' || n > UINT32_MAX) {
        return false;
    }
    if (is_key(key, len, "deadline_ms")) {
        set->ask.deadline_ms = (uint32_t)n;
    } else if (is_key(key, len, "grace_ms")) {
        set->ask.grace_ms = (uint32_t)n;
    } else if (is_key(key, len, "max_tokens")) {
        set->ask.max_tokens = (uint32_t)n;
    } else if (is_key(key, len, "keep_alive_s") && n >= 1 && n <= UINT16_MAX) {
        set->ask.keep_alive_s = (uint16_t)n;
    } else if (is_key(key, len, "attempts") && n >= 1 && n <= UINT8_MAX) {
        set->ask.attempts_max = (uint8_t)n;
    } else if (is_key(key, len, "buffer") && n <= DEVICE_IN_BYTES) {
        set->in_bytes = n;
    } else if (is_key(key, len, "stream")) {
        set->ask.stream = n != 0;
    } else if (is_key(key, len, "local")) {
        set->ask.local = n != 0;
    } else if (is_key(key, len, "bare")) {
        set->ask.bare = n != 0;
    } else {
        return false;
    }
    return true;
}

bool settings_take(struct device_settings *set, const char *pair)
{
    const char *equals = strchr(pair, '=');
    size_t len;
    if (equals == NULL) {
        return false;
    }
    len = (size_t)(equals - pair);
    return take_text(set, pair, len, equals + 1) || take_number(set, pair, len, equals + 1);
}
