/* libmodsecurity and libinjection behind a pipe, for comparisons and measurements. Development only.
 *
 *   modsecurity rules FILE...     one answer a line: the status, then the ids of rules that matched
 *   modsecurity measure FILE...   the same requests over and over: ns of CPU for each
 *   modsecurity injection         values on stdin; for each the fingerprint of SQL or "-", and 0 or 1 for a script
 *
 * What is read and written is framed by xtask (oracle/mod.rs): numbers have 4 bytes, the least first; texts their
 * length before them.
 */
#include <modsecurity/modsecurity.h>
#include <modsecurity/rules_set.h>
#include <modsecurity/transaction.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Exported by libmodsecurity, which has libinjection inside; its headers do not name them. */
int libinjection_sqli(const char *value, size_t length, char fingerprint[]);
int libinjection_xss(const char *value, size_t length);

typedef struct { unsigned char *bytes; size_t length; } text;

enum { FIELDS_MAX = 256, IDS_MAX = 1024 };

typedef struct {
    text method, target, version, body, answer;
    uint32_t status, fields;
    text names[FIELDS_MAX], values[FIELDS_MAX];
} request;

static int ids[IDS_MAX];
static size_t id_count;

static void fail(const char *what) {
    fprintf(stderr, "oracle: %s\n", what);
    exit(1);
}

static int number(uint32_t *out) {
    unsigned char bytes[4];
    if (fread(bytes, 1, 4, stdin) != 4) return 0;
    *out = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t) bytes[3] << 24;
    return 1;
}

static int read_text(text *out) {
    uint32_t length;
    if (!number(&length)) return 0;
    out->bytes = malloc((size_t) length + 1);
    if (!out->bytes || fread(out->bytes, 1, length, stdin) != length) fail("a text breaks off");
    out->bytes[length] = 0;
    out->length = length;
    return 1;
}

static int read_request(request *r) {
    if (!read_text(&r->method)) return 0;
    if (!read_text(&r->target) || !read_text(&r->version) || !number(&r->fields)) fail("a request breaks off");
    if (r->fields > FIELDS_MAX) fail("a request has too many fields");
    for (uint32_t n = 0; n < r->fields; n++)
        if (!read_text(&r->names[n]) || !read_text(&r->values[n])) fail("a request breaks off");
    if (!read_text(&r->body) || !number(&r->status) || !read_text(&r->answer)) fail("a request breaks off");
    return 1;
}

static void free_request(request *r) {
    free(r->method.bytes), free(r->target.bytes), free(r->version.bytes), free(r->body.bytes), free(r->answer.bytes);
    for (uint32_t n = 0; n < r->fields; n++) free(r->names[n].bytes), free(r->values[n].bytes);
}

/* The id stands behind file and line; what comes before them may hold anything. */
static void told(void *data, const void *message) {
    (void) data;
    const char *line = strstr(message, "[line \"");
    const char *id = line ? strstr(line, "[id \"") : NULL;
    if (id && id_count < IDS_MAX) ids[id_count++] = atoi(id + 5);
}

static int intervened(Transaction *t) {
    ModSecurityIntervention it = {200, 0, NULL, NULL, 0};
    if (!msc_intervention(t, &it)) return 0;
    free(it.log), free(it.url);
    return it.status;
}

static int phases(Transaction *t, request *r) {
    const unsigned char *version = r->version.bytes;
    int status;
    msc_process_connection(t, "192.0.2.7", 50000, "192.0.2.1", 443);
    msc_process_uri(t, (char *) r->target.bytes, (char *) r->method.bytes,
                    strncmp((char *) version, "HTTP/", 5) == 0 ? (char *) version + 5 : (char *) version);
    for (uint32_t n = 0; n < r->fields; n++)
        msc_add_n_request_header(t, r->names[n].bytes, r->names[n].length, r->values[n].bytes, r->values[n].length);
    msc_process_request_headers(t);
    if ((status = intervened(t))) return status;
    msc_append_request_body(t, r->body.bytes, r->body.length);
    msc_process_request_body(t);
    if ((status = intervened(t))) return status;
    msc_add_response_header(t, (unsigned char *) "Content-Type", (unsigned char *) "text/html");
    msc_process_response_headers(t, (int) r->status, "HTTP/1.1");
    if ((status = intervened(t))) return status;
    msc_append_response_body(t, r->answer.bytes, r->answer.length);
    msc_process_response_body(t);
    return intervened(t);
}

static int run(ModSecurity *engine, RulesSet *rules, request *r) {
    id_count = 0;
    Transaction *t = msc_new_transaction_with_id(engine, rules, "oracle", NULL);
    int status = phases(t, r);
    msc_process_logging(t);
    msc_transaction_cleanup(t);
    return status;
}

static int ascending(const void *a, const void *b) { return *(const int *) a - *(const int *) b; }

static void answer(int status) {
    qsort(ids, id_count, sizeof *ids, ascending);
    printf("%d", status);
    for (size_t n = 0; n < id_count; n++)
        if (n == 0 || ids[n] != ids[n - 1]) printf(" %d", ids[n]);
    printf("\n");
    fflush(stdout);
}

static double cpu(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

/* The best of several rounds of a fifth of a second. */
static void measure(ModSecurity *engine, RulesSet *rules, request *r) {
    double best = 1e18;
    run(engine, rules, r);
    for (int round = 0; round < 7; round++) {
        long count = 0;
        double begin = cpu(), spent;
        do {
            run(engine, rules, r);
            count++;
            spent = cpu() - begin;
        } while (spent < 2e8);
        if (spent / count < best) best = spent / count;
    }
    printf("%.0f\n", best);
    fflush(stdout);
}

static void injection(void) {
    text value;
    while (read_text(&value)) {
        char fingerprint[16] = "";
        int sqli = libinjection_sqli((char *) value.bytes, value.length, fingerprint);
        int xss = libinjection_xss((char *) value.bytes, value.length);
        printf("%s %d\n", sqli ? fingerprint : "-", xss);
        free(value.bytes);
    }
}

int main(int count, char **arguments) {
    static request r;
    if (count > 1 && strcmp(arguments[1], "injection") == 0) return injection(), 0;
    if (count < 3) fail("modsecurity rules|measure FILE... or modsecurity injection");
    ModSecurity *engine = msc_init();
    msc_set_log_cb(engine, told);
    RulesSet *rules = msc_create_rules_set();
    double begin = cpu();
    for (int n = 2; n < count; n++) {
        const char *error = NULL;
        if (msc_rules_add_file(rules, arguments[n], &error) < 0) fail(error ? error : arguments[n]);
    }
    fprintf(stderr, "oracle: rules loaded in %.0f ms\n", (cpu() - begin) / 1e6);
    while (read_request(&r)) {
        if (strcmp(arguments[1], "measure") == 0) measure(engine, rules, &r);
        else answer(run(engine, rules, &r));
        free_request(&r);
    }
    return 0;
}
