/* Parse any bytes as records (native/shared/records.h), and pack what came out again. */
#include "../process.h"
#include "../../../native/shared/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    char *bytes = guarded_copy(input, size), *cursor = bytes, *key, *value;
    struct buffer packed = {0};
    bool malformed = false;
    while (record_next(&cursor, bytes + size, &key, &value, &malformed))
        record_add(&packed, key, value);
    size_t taken = (size_t)(cursor - bytes);
    expect(malformed == (taken < size), "all is taken unless it is malformed");
    expect(!packed.failed && packed.length == taken, "a record is packed in its own length");
    expect(taken == 0 || memcmp(packed.bytes, input, taken) == 0, "a record is packed as it came");
    free(packed.bytes);
    free(bytes);
    return 0;
}
