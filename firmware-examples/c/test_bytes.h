/* What the unit tests stand on: a check that counts, and byte strings on the heap with their exact size. */
#ifndef TEST_BYTES_H
#define TEST_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned checks;
static unsigned failures;

#define CHECK(what)                                                         \
    do {                                                                    \
        checks++;                                                           \
        if (!(what)) {                                                      \
            failures++;                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
        }                                                                   \
    } while (0)

struct bytes {
    uint8_t *at;
    size_t len;
};

static struct bytes copy(const void *from, size_t len)
{
    struct bytes b = {malloc(len > 0 ? len : 1), len};
    if (b.at == NULL) {
        abort();
    }
    if (len > 0) {
        memcpy(b.at, from, len);
    }
    return b;
}

static struct bytes read_file(const char *folder, const char *name)
{
    static uint8_t buf[65536];
    char path[1024];
    FILE *f;
    size_t len;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "rb");
    if (f == NULL) {
        fprintf(stderr, "cannot open %s\n", path);
        exit(1);
    }
    len = fread(buf, 1, sizeof buf, f);
    fclose(f);
    return copy(buf, len);
}

static void append(struct bytes *b, const void *more, size_t len)
{
    b->at = realloc(b->at, b->len + len + 1);
    if (b->at == NULL) {
        abort();
    }
    memcpy(b->at + b->len, more, len);
    b->len += len;
}

/* The bytes of a block "```hex NAME" of the README; what follows # on a line is a note. */
static inline struct bytes hex_block(const char *readme, const char *name)
{
    struct bytes out = copy("", 0);
    char line[512], fence[64];
    bool inside = false;
    FILE *f = fopen(readme, "r");
    snprintf(fence, sizeof fence, "```hex %s\n", name);
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *at = line, *end;
        if (inside && strncmp(line, "```", 3) == 0) {
            break;
        }
        if (!inside) {
            inside = strcmp(line, fence) == 0;
            continue;
        }
        line[strcspn(line, "#")] = '\0';
        for (;; at = end) {
            uint8_t byte = (uint8_t)strtoul(at, &end, 16);
            if (end == at) {
                break;
            }
            append(&out, &byte, 1);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return out;
}

/* Whether `len` bytes of `is` are the expected ones, which are freed. */
static inline bool same(const uint8_t *is, size_t len, struct bytes expected)
{
    bool equal = len == expected.len && memcmp(is, expected.at, len) == 0;
    free(expected.at);
    return equal;
}

#endif
