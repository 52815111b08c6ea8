# A process that answers over a queue.
from multiprocessing import Process, Queue

def work(queue, x):
    queue.put(x + 1)

def f(x):
    queue = Queue()
    process = Process(target=work, args=(queue, x))
    process.start()
    found = queue.get()
    process.join()
    return found
