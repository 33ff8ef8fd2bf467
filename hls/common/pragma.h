// A pragma with constants in it: `HLS_PRAGMA(DEPENDENCE variable=sums distance=PARTIAL_SUMS)`. Whether a tool looks
// macros up in `#pragma` depends on its version; here the preprocessor has done so.
#ifndef BARISTA_PRAGMA_H
#define BARISTA_PRAGMA_H

#define HLS_PRAGMA_TEXT(text) _Pragma(#text)
#define HLS_PRAGMA(text) HLS_PRAGMA_TEXT(HLS text)

#endif
