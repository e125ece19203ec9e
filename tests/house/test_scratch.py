from tests.support.house import House, eventually
import time
def test_x(house: House):
    t=time.time()
    ada = house.caller()
    a = ada.post("/openai/v1/chat/completions", {"model":"gpt-5-mini","messages":[{"role":"user","content":"hi"}]})
    print(a)
    print(ada.record(), time.time()-t)
    a = ada.post("/v1/messages", {"model":"claude-sonnet-4-5","max_tokens":10,"stream":True,"messages":[{"role":"user","content":"hi"}]})
    print(a)
    print(ada.records(2)[1], time.time()-t)
    print(house.log)
    print(house.raw(b"GET / HTTP/1.1\r\nhost: x\r\nfoo: a\rb\r\n\r\n"))
    print(house.log)
