// Memories on the chip, declared so that C-simulation can count their words.
//
//     word_t tile[TP][TR];
//     ON_CHIP("tile_a", tile, 2)       // two copies of it: while one is filled the other is read
//
// The count is of what the code declares; a test holds it against the resource model.
#ifndef BARISTA_ON_CHIP_H
#define BARISTA_ON_CHIP_H

#ifdef __SYNTHESIS__
#define ON_CHIP(name, array, copies)
#else
#include "../csim/simulation.h"
#define ON_CHIP(name, array, copies) simulation::on_chip(name, simulation::words_of(array) * (copies));
#endif

#endif
