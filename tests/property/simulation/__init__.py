"""A simulation of a whole stream over the project's own code: random schedules of everything that can go wrong at once.

    checker.py     what was put, acknowledged and handled, and whether that keeps the promises; shares no code with the product
    world.py       fake control log, partitions and network, and the random schedule
    producers.py   producer processes: the real ProducerState, Settling and Packer under a fake librdkafka client
    resharders.py  the steps of pipeline/reshard/resharder.py, which may stop after any of them
    readers.py     a group of readers: the steps of pipeline/consume/reading.py over the real gate, marks and void rule
    rules.py       the protocol's rules, and subclasses that each take one away
    run.py         one schedule from one seed

A schedule is told by its seed alone.
"""
