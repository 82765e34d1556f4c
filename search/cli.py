"""tmp"""
import sys, signal, threading, argparse, os, logging
def main():
    a=argparse.ArgumentParser(); a.add_argument('cmd'); a.add_argument('--study'); a.add_argument('--exit-when-idle',action='store_true'); a.add_argument('--parent',type=int); a.add_argument('--only')
    o=a.parse_args()
    from aesearch.worker import Worker, KINDS, ALL_KINDS
    from aesearch.studies import store
    logging.basicConfig(level=logging.INFO)
    stop=threading.Event(); signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Worker(store.open_store(os.environ['AESEARCH_STORAGE']),o.study,kinds=KINDS.get(o.only,ALL_KINDS),stop=stop,parent=o.parent).run(exit_when_idle=True)
