"""temporary"""
def f(): return 1
