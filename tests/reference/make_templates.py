#!/usr/bin/env python3
"""Writes what Hugging Face transformers renders of many small templates.

    make_templates.py [FIXTURES_FOLDER]

Each snippet goes through the environment that `apply_chat_template` sets up
(`_compile_jinja_template`), with `strftime_now` fixed to a day. The fixture holds
the text, or that there is an error. `REFUSED` names the snippets that render
there and that the project refuses: as few as possible.

The templates under `templates/` are written in the manner of public models'; none
is a copy. They are rendered for the conversations of CONVERSATIONS.
"""

import copy
import datetime
import json
import sys
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
FIXTURES = Path(sys.argv[1]) if len(sys.argv) == 2 else HERE / "fixtures"
TODAY = datetime.datetime(2024, 7, 26)

# What snippets may name, beside `bos_token` and the like.
VARS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What's 1+1?\n"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": "Why?"},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "text": "Hello, World! Hello, Jinja!",
    "blank": "",
    "lines": "one\ntwo\r\nthree\n\nfive",
    "word": "naïve Straße ŒUVRE",
    "n": 7,
    "x": 2.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": [3, 1, 2],
    "words": ["pear", "Apple", "fig", "apple"],
    "mixed": ["a", 1, 2.0, None, True, "it's", 'say "hi"', ["x"], {"k": "v"}],
    "dict": {"b": 1, "a": [1, 2], "c": {"d": "é"}, "items": "own"},
    "people": [
        {"name": "Ann", "age": 30, "city": {"name": "Rome"}},
        {"name": "bob", "age": 25, "city": {"name": "Oslo"}},
        {"name": "Cy", "age": 30, "city": {"name": "rome"}},
    ],
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]}],
    "tool": {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds \"two\" numbers <b> & 'more' – ü",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
        },
    },
}

EXPRESSIONS = r"""
1
-1
+1
1.0
2.5
1e20
1e16
1e15
123456789012345678.0
0.1
1e-5
0.0001
1.5e-7
1E3
1_000
0x1F
0o17
0b101
9223372036854775807 + 1
10 ** 20
2 ** -1
2 ** 0.5
2 ** 3 ** 2
-3 ** n
(-2) ** list[2]
(-2) ** 2
(n - 9) ** 2
-2 ** 2
7 // 2
-7 // 2
7 // -2
7 % 3
-7 % 3
7 % -3
7.5 % 2
-7.5 % 2
-7.5 // 2
7 / 2
6 / 3
1 / 3
1 / 0
1 // 0
1 % 0
1.0 / 0
3 * 1.5
1 + 1.0
true + 1
true
True
none
None
false
[]
[1]
[1, 2.0, 'a', "b", none, true, undefined_name]
['a', 'b']
["it's"]
['say "hi"']
["both ' and \""]
['\n\t\\']
['é', '\u00a0', '\x00', '\u200b', '😀']
()
(1,)
(1, 2)
1, 2
{}
{'a': 1, "b": [1, 'x']}
{1: 'a', none: 2, (1, 2): 3}
{'a': 1, 'a': 2}
{[1]: 2}
{1, 2}
mixed
dict
people[0]
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'a'] ~ {'k': none} ~ undefined_name
'a' + 'b'
'a' + 1
1 + 'a'
[1] + [2]
[1] + (2,)
(1,) + (2,)
'ab' * 3
3 * 'ab'
'ab' * -1
[0] * 3
'a' * 2.0
'a' - 'b'
none + 1
'a' 'b' "c"
'\x41\u00e9\n\t\'\"\\\101\q'
"\U0001F600"
'line\
continued'
1 < 2
1 < 2 < 3
3 > 2 > 2
1 == 1.0
1 == true
'1' == 1
'a' < 'b'
'B' < 'a'
1 < 'a'
none < 1
[1, 2] < [1, 3]
[1] == [1.0]
(1,) == [1]
{'a': 1} == {'a': 1.0}
none == none
undefined_name == undefined_name
undefined_name == none
undefined_name < 1
1 in [1.0, 2]
'ell' in 'hello'
'' in ''
1 in '123'
'a' in {'a': 1}
'z' not in dict
1 in none
[1] in [[1]]
'x' in undefined_name
3 in range(5)
not true
not not 1
not 1 == 2
1 and 2
0 and 2
0 or 'x'
'' or none
none or []
true and false or true
1 if true
1 if false
1 if false else 2
1 if false else 2 if false else 3
(1 if no) is defined
'a' if yes and not no else 'b'
undefined_name
undefined_name.x
undefined_name['x']
undefined_name()
undefined_name + 'a'
'a' ~ undefined_name
dict.zzz
dict.zzz.y
dict['zzz']
dict.b
dict['b']
dict.items
dict['items']
dict.items()
dict.keys()
dict.values()
dict.items()|list
dict.keys()|list
dict.get('b')
dict.get('q')
dict.get('q', 5)
dict.get()
dict.a.0
dict.a[1]
dict.c.d
dict.pop('b')
dict.update({'q': 1})
dict.setdefault('q', 1)
dict.clear()
dict.copy() == dict
list.append(4)
list.pop()
list.sort()
list.index(1)
list.index(9)
list.count(3)
list.copy()
list.0
list[0]
list[-1]
list[9]
list['a']
list[1:]
list[:-1]
list[::-1]
list[::2]
list[5:]
list[-2:]
list[2:0:-1]
list[::0]
list[none:2]
text[0]
text[-1]
text[100]
text[:5]
text[-6:]
text[::-1]
text[7:12]
text[1:-1:3]
(1, 2, 3)[1:]
word[1:3]
none[0]
none.a
1.a
n.a
''.__class__
''.__class__.__mro__
text.foo
text.upper()
text.lower()
text.upper().lower().title()
text.title()
"they're bill's".title()
text.capitalize()
'ÉCOLE'.capitalize()
word.upper()
word.lower()
word.swapcase()
text.swapcase()
'x'.center(6)
'x'.center(5)
'xy'.center(5, '*')
'x'.ljust(4) ~ '|'
'x'.rjust(4, '0')
'42'.zfill(5)
'-42'.zfill(5)
'+1'.zfill(1)
text.split()
text.split(', ')
text.split(', ', 1)
text.split(',', maxsplit=1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.split(' ')
' a  b c '.rsplit(none, 1)
text.rsplit(' ', 1)
text.split('')
'a</think>b</think>c'.split('</think>')[-1]
'a</think>b'.split('</think>')[0].rstrip('\n')
'abc'.split('</think>')[-1].lstrip('\n')
text.partition(',')
text.rpartition(',')
text.partition('zz')
text.rpartition('zz')
lines.splitlines()
lines.splitlines(true)
'a\x0bb\x1cc\u2028d'.splitlines()
'  a '.strip() ~ '|'
'\x1c\u00a0a\x1f'.strip()
'xxaxx'.strip('x')
'abcab'.strip('ba')
'abcab'.lstrip('ab')
'abcab'.rstrip('ba')
text.strip(none)
text.find('World')
text.find('zz')
text.rfind('Hello')
text.find('l', 4)
text.index('zz')
text.count('l')
text.count('')
'aaaa'.count('aa')
text.startswith('Hello')
text.startswith(('X', 'H'))
text.startswith(['H'])
text.startswith('World', 7)
text.endswith('!')
text.endswith(('?', '!'))
text.replace('Hello', 'Bye')
text.replace('Hello', 'Bye', 1)
'abc'.replace('', '-')
'abc'.replace('b')
text.removeprefix('Hello')
text.removesuffix('!')
text.removeprefix('zz')
', '.join(words)
', '.join([1, 2])
''.join('abc')
'a\tb'.expandtabs(4)
'{} {}'.format('a', 1)
'{0} {1} {0}'.format('a', 1)
'{a} {b!r}'.format(a=1, b='x')
'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')
'{:05d} {:,} {:x} {:.2f} {:e} {:%}'.format(42, 1234567, 255, 3.14159, 1234.5, 0.25)
'{:+} {: } {:*^9}'.format(1, 2, 'mid')
'{} {} {}'.format(none, true, [1, 'a'])
'{:.3}'.format('abcdef')
'{:.3}'.format(1234.5)
'{:g}'.format(1e10)
'{0[a]} {0[b][0]}'.format({'a': 1, 'b': [2]})
'{{}}'.format()
'{'.format()
'{}'.format()
'{} {0}'.format(1)
'%s and %s' % ('a', 1)
'%s' % 'x'
'%s' % none
'%s' % [1, 'a']
'%s' % (1, 2)
'%d' % 3.7
'%d' % 'x'
'%05d|%-5d|%+d|% d' % (42, 42, 42, 42)
'%x %X %o %#x' % (255, 255, 8, 255)
'%.2f %5.1f %e %g %g' % (3.14159, 2.55, 12345.678, 0.0001, 1e10)
'%r %s' % ('a', 'a')
'%(a)s-%(b)d' % {'a': 'x', 'b': 2}
'%%' % ()
'%s %s' % 'a'
'%c%c' % ('a', 66)
'%5s|%-5s|%.2s' % ('a', 'b', 'cdef')
'%*d' % (5, 42)
'%.0f %.0f %.0f' % (0.5, 1.5, 2.5)
'abc' % [1]
'abc' % 1
'abc'.isalpha()
'ab1'.isalpha()
'ab1'.isalnum()
'12'.isdigit()
'²'.isdigit()
'²'.isdecimal()
'½'.isnumeric()
''.isdigit()
'abc'.islower()
'Abc'.islower()
'ABC'.isupper()
'A1'.isupper()
' \t\n'.isspace()
'Ab Cd'.istitle()
'a_1'.isidentifier()
'é'.isascii()
'a\n'.isprintable()
'é'.isalpha()
'ab'.casefold()
'x'.encode()
2.0.is_integer()
x.is_integer()
n.bit_length()
range(3)
range(1, 10, 3)|list
range(3, 0, -1)|list
range(0)|list
range(5)[2]
range(5)[-1]
range(9)[2:7:2]
range(9)[::-1]|list
range(3)[5:]
range(5)|length
range(1000000)
range(1, 2, 0)
range('a')
namespace(a=1)
namespace(a=1).a
namespace({'a': 2}).a
namespace(_a=1)
dict(a=1)
dict|length
joiner
cycler(1, 2).next()
raise_exception('stop')
strftime_now('%d %b %Y')
strftime_now('%Y-%m-%d')
strftime_now('%A, %B %d, %Y')
strftime_now('%-d %H:%M:%S %p %j %y')
lipsum()
self
text|upper
text|lower
text|title
"foo-bar (baz) it's"|title
text|capitalize
'  a '|trim ~ '|'
'xax'|trim('x')
text|replace('Hello', 'Bye')
text|replace('Hello', 'Bye', 1)
123|replace(2, 'x')
text|length
text|count
list|length
dict|length
undefined_name|length
5|length
none|length
text|first
list|first
list|last
[]|first
[]|last
dict|first
text|reverse
list|reverse|list
list|reverse
dict|reverse|list
list|sort
words|sort
words|sort(case_sensitive=true)
words|sort(reverse=true)
words|sort(true, true)
people|sort(attribute='age')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='city.name')|map(attribute='name')|list
people|sort(reverse=true, attribute='age')|map(attribute='name')|list
[1, 'a']|sort
words|unique|list
words|unique(case_sensitive=true)|list
people|unique(attribute='age')|map(attribute='name')|join(',')
list|min
list|max
words|min
words|max
[]|max
people|max(attribute='age')
list|sum
people|sum(attribute='age')
list|sum(start=10)
[0.1, 0.2]|sum
['a']|sum
[[1], [2]]|sum(start=[])
list|join
list|join(', ')
words|join(', ')
people|join(', ', attribute='name')
dict|join(',')
'abc'|join('-')
mixed|join('|')
undefined_name|join
5|join
'abc'|list
dict|list
undefined_name|list
5|list
text|string
5|string
none|string
[1, 'a']|string
5|int
'5'|int
' 42 '|int
'-7'|int
'1_000'|int
'4.7'|int
'1e3'|int
4.7|int
-4.7|int
'x'|int
'x'|int(9)
'x'|int(default=9)
'ff'|int(base=16)
'0xff'|int(0, 16)
'0x1F'|int(base=0)
'101'|int(0, 2)
none|int
[]|int
true|int
undefined_name|int
undefined_name|int(3)
'1.5'|float
'1e3'|float
'inf'|float
'nan'|float
'x'|float
'x'|float(1)
none|float
3|float
42.55|round
42.55|round(1)
2.5|round
3.5|round
-2.5|round
5|round
5|round(2)
1234|round(-2)
42.55|round(1, 'floor')
42.55|round(1, 'ceil')
2.675|round(2)
2.1|round(method='ceil')
2.1|round(0, 'x')
-5|abs
(-5)|abs
-5.5|abs
'a'|abs
undefined_name|default('d')
undefined_name|default
undefined_name|d('x')
''|default('d')
''|default('d', true)
none|default('d')
none|default('d', boolean=true)
false|default('d', true)
0|default('d', true)
dict.zzz|default('d')
dict.zzz.y|default('d')
list|map('string')|list
list|map('string')|join('-')
words|map('upper')|list
words|map('replace', 'p', 'b')|list
words|map('length')|list
words|map('nofilter')|list
people|map(attribute='name')|list
people|map(attribute='city.name')|list
people|map(attribute='zip', default='-')|list
people|map(attribute='zip')|list
list|map('string')
list|select('odd')|list
list|select|list
[0, 1, '', 'a', none]|select|list
list|reject('odd')|list
list|select('>', 1)|list
list|select('in', [1, 2])|list
list|select('divisibleby', 3)|list
words|select('equalto', 'fig')|list
people|selectattr('age', '>', 26)|map(attribute='name')|list
people|selectattr('age', 'equalto', 25)|list
people|selectattr('name')|list|length
people|rejectattr('age', 'eq', 30)|map(attribute='name')|list
people|selectattr('city.name', 'eq', 'Oslo')|list|length
people|selectattr('zip', 'defined')|list
people|selectattr('zip', 'undefined')|list|length
messages|selectattr('role', 'equalto', 'user')|list|length
people|groupby('age')
people|groupby('city.name')
people|groupby('city.name', case_sensitive=true)|list|length
people|groupby('zip', default='none')
[1, 2, 3, 4, 5]|batch(2)|list
[1, 2, 3]|batch(2, 'x')|list
[1, 2, 3, 4, 5]|slice(2)|list
[1, 2, 3]|slice(2, 'x')|list
lines|indent
lines|indent(2)
lines|indent(2, true)
lines|indent(2, false, true)
lines|indent('> ')
lines|indent(width=2, first=true)
'a\n'|indent
''|indent
text|wordcount
'a-b c_d 1 é'|wordcount
text|truncate(10)
text|truncate(10, true)
text|truncate(10, false, '…')
text|truncate(10, true, '', 0)
text|truncate(24)
text|truncate(2)
text|center(40)
'a%sb'|format('x')
'%s %d'|format('x', 3)
'%(a)s'|format(a='x')
'<b>&"\''|e
'<b>'|escape
('<b>'|e)|e
'<b>'|safe
('<'|e) ~ '<'
5|e
none|e
{'class': 'a', 'id': none, 'title': '<x>'}|xmlattr
{'a b': 1}|xmlattr
dict|dictsort
dict|dictsort(reverse=true)
{'B': 2, 'a': 1}|dictsort
{'B': 2, 'a': 1}|dictsort(true)
{'B': 2, 'a': 1}|dictsort(by='value')
{'B': 2, 'a': 1}|dictsort(false, 'value')
dict|items|list
undefined_name|items|list
[]|items|list
dict|attr('items')
dict|attr('b')
text|attr('upper')
text|filesizeformat
1|filesizeformat
1500|filesizeformat
123456789|filesizeformat
2048|filesizeformat(true)
'a b/c?é'|urlencode
5|urlencode
'a b'|wordwrap(1)
list|pprint
list|random
'<b>x</b>'|striptags
text|nofilter
text|upper|lower|title
text|upper()
dict|tojson
tool|tojson
tool|tojson(indent=2)
tool|tojson(indent=4)
tool|tojson(sort_keys=true)
tool|tojson(ensure_ascii=true)
tool|tojson(separators=(',', ':'))
tool|tojson(indent=2, separators=(',', ': '))
tool|tojson(indent='\t')
tool|tojson(false, 1)
[]|tojson
{}|tojson(indent=2)
[[], {}]|tojson(indent=2)
[1, 1.0, 1e20, none, true, 'é\n"\\\x01😀']|tojson
[1.5, 'é\x7f😀']|tojson(ensure_ascii=true)
(1, 2)|tojson
'<b>'|tojson
undefined_name|tojson
{1: 2, none: 3, true: 4}|tojson
dict.keys()|tojson
messages|tojson
'a'|tojson ~ '<'
n is odd
n is even
n is divisibleby 7
n is divisibleby(2)
n is number
x is number
yes is number
n is integer
yes is integer
x is float
n is float
yes is boolean
n is boolean
yes is true
1 is true
no is false
text is string
n is string
list is sequence
text is sequence
dict is sequence
n is sequence
undefined_name is sequence
range(3) is sequence
dict is mapping
list is mapping
list is iterable
text is iterable
n is iterable
undefined_name is iterable
none is iterable
nothing is none
nothing is not none
undefined_name is none
undefined_name is defined
undefined_name is not defined
undefined_name is undefined
dict.zzz is defined
dict.b is defined
messages[0].tool_calls is defined
messages[0].tool_calls is defined and messages[0].tool_calls is not none
messages[9] is defined
text is callable
range is callable
text.upper is callable
none is sameas none
true is sameas true
1 is sameas true
list is sameas list
[] is sameas []
'abc' is lower
'ABC' is upper
1 is in [1, 2]
'a' is in 'abc'
1 is eq 1
1 is equalto 1.0
1 is ne 2
2 is gt 1
2 is greaterthan 1
1 is lt 2
1 is le 1
1 is ge 2
1 is == 1
'upper' is filter
'odd' is test
n is nosuchtest
n is odd is odd
not n is odd
n is not odd
n is odd and x is float
('<'|e) is escaped
text is not string or n is number
n is divisibleby 7 and yes
text|upper is upper
text is string and text|length > 3
messages|length - 1
messages[-1].role
messages[0]['role'] == 'system'
messages[1:]|length
messages[1:][0].content|trim
(messages|last).content
messages|map(attribute='role')|join(',')
loop
caller
varargs
(1)(2)
text()
text.upper
range(3)|map('string')
1.0|string ~ 1e100
100000000000000000000 * 10
170141183460469231731687303715884105727 + 1
2 ** 200
true ~ false
[true, none]|string
dict.b + dict['b']
[[1, [2]], {'a': {'b': []}}]
{'a': undefined_name}
'a' < 1
-n
-x
-'a'
+text
- - 1
n is not none and n > 5
a.b.c if false else 'ok'
'x' if undefined_name else 'y'
'x' if undefined_name is defined and undefined_name else 'y'
[1, 2, 3,]
{'a': 1,}
(1, 2,)
[x, n]
text.split(',')|map('trim')|list
text|list|length
(text|list)[0:3]
[3, 1]|sort|first
words|join('\n')|indent(2)
[1, 2, 3] is iterable
'%s' % undefined_name
'{}'.format(undefined_name)
'a' ~ ('b' if no)
[1, 2]|string|length
dict['c']['d']
dict.get('c').d
dict.get('c', {}).get('d', 'x')
dict.get('q', {}).get('d', 'x')
('a', 'b')[0]
'abc'[1]
'abc'[1:2]
'abc'|first
3.0 is odd
'a' is odd
5 // 2.0
5 % 2.5
1e308 * 10
-0.0
0.0 * -1
1.0 * 3
10 / 5
2 ** 10
2.0 ** 2
round(2)
len(text)
str(1)
text | upper | replace("HELLO", "X")
''.join(words|sort)
words|sort|join(' ')|upper
dict.items()|list|length
dict.items()|first
dict.values()|list
dict.keys()|join(',')
'b' in dict.keys()
1 in dict.values()
('b', 1) in dict.items()
dict.items()|sort|list
list(1)
"a" is string and 1 is number or none
text.replace(',', '').split()|length
'a,b,,c'.split(',')
'abc'.format
'\\n'
'a\\b'
'#{x}'
"{{ x }}"
'%d%%' % 50
"tab\there"
text.split(sep=', ')
text.upper(1)
text|upper(1)
text|trim(1)
text|replace
text|default(1, 2, 3)
[1, 2, 3][1.5]
dict[[1]]
text['upper']()
dict['get']('b')
text|attr('upper') is callable
namespace(x=[1]).x[0]
namespace(x=1)['x']
namespace(x=1).y
namespace(x=1).y.z
cycler('a').current
joiner('|')() ~ 'x'
1 if undefined_name.x else 2
''|int
'٣'|int
'ǆ'.title()
'ß'.upper()
'ß'.capitalize()
'İ'.lower()
'ΑΣ'.lower()
"a'b"|string|tojson
x|string|tojson
[x]|string
3 in list and 'fig' in words
2 > 1 and 'yes' or 'no'
(messages|selectattr('role', 'eq', 'system')|list)[0].content
messages|selectattr('role', 'in', ['user', 'assistant'])|map(attribute='content')|map('trim')|join(' / ')
messages[::2]|map(attribute='role')|list
messages[::-1]|map(attribute='role')|list
messages|map(attribute='role')|unique|list
messages|groupby('role')|map(attribute='grouper')|list
(messages|groupby('role'))[0].list|length
(messages|groupby('role'))[0][0]
messages|batch(3)|map('length')|list
messages|rejectattr('role', 'eq', 'system')|first
"<|im_start|>" + messages[0]['role'] + '\n' + messages[0]['content'] + '<|im_end|>' + '\n'
"""

STATEMENTS = [
    "a\n{% if true %}\nb\n{% endif %}\nc",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r",
    "a\rb\r\n",
    "a\n\n",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a  {%+ if true +%}\n  b  {%+ endif +%}\n  c",
    "   {% if true %}x{% endif %}   \n   {{ n }}   \n",
    "\t {# comment #}\nnext",
    "a {#- comment -#} b",
    "a\n  {# c #}  \nb",
    "{#\n multi {{ x }} {% if %}\n#}z",
    "{{- n -}}\n x",
    "x\n{{- n }}\n",
    "x {{ n -}}  y",
    "{% raw %}{{ x }}{% if %}{% endraw %}\nz",
    "  {%- raw -%}  {{ x }}  {%- endraw -%}  z",
    "{% raw %}\n a {% endraw %}\nb",
    "# line statement?\n## no\n{{ n }}",
    "{% if n == 7 %}7{% elif n == 8 %}8{% else %}?{% endif %}",
    "{% if undefined_name %}a{% elif list %}b{% else %}c{% endif %}",
    "{% if not list %}a{% endif %}b",
    "{% for i in list %}{{ i }}{% endfor %}",
    "{% for i in [] %}{{ i }}{% else %}none{% endfor %}",
    "{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for i in list %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }},{% endfor %}",
    "{% for i in list %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }};{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }};{% endfor %}",
    "{% for i in list %}{{ loop }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
    "{% for a in [1, 2] %}{% set outer = loop %}{% for b in 'xy' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in dict|items %}{{ k }};{% endfor %}",
    "{% for k in dict %}{{ k }};{% endfor %}",
    "{% for k, v in dict|dictsort %}{{ k }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, b in ['xy', 'zw'] %}{{ b }}{{ a }}{% endfor %}",
    "{% for c in 'aé😀' %}{{ c }},{% endfor %}",
    "{% for i in none %}x{% endfor %}",
    "{% for i in undefined_name %}x{% else %}e{% endfor %}",
    "{% for i in 5 %}x{% endfor %}",
    "{% for i in range(6) if i is odd %}{{ i }}{{ loop.index }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for i in range(6) if i > 9 %}x{% else %}none{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index0 }}{{ m.role }}{% if loop.last %}!{% endif %}{% endfor %}",
    "{% set ns = namespace(stop=false) %}{% for i in range(5) if not ns.stop %}{{ i }}{% if i == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% set ns = namespace(stop=false) %}{% for i in range(5) if not ns.stop %}{{ i }}{{ loop.last }}{% if i == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in [1] %}{% continue %}{% else %}e{% endfor %}",
    "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{% else %}e{% endfor %}",
    "{% for i in [1] %}{% break %}{% else %}e{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2, 3] %}{%- if b == 2 -%} {%- break -%} {%- endif -%}{{ a }}{{ b }}{% endfor %};{% endfor %}",
    "{% break %}",
    "{% continue %}",
    "{% macro m() %}{% break %}{% endmacro %}",
    "{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for i in list recursive %}{{ i }}{% endfor %}",
    "{% for t in tree recursive %}{{ t.v }}:{{ loop.depth }}{% if t.kids %}({{ loop(t.kids) }}){% endif %}{% endfor %}",
    "{% for t in list %}{{ loop([]) }}{% endfor %}",
    "{% for loop in list %}{% endfor %}",
    "{% for i in list %}{% set loop = 1 %}{% endfor %}",
    "{% for i in list %}{% endfor %}{{ i }}",
    "{% set i = 9 %}{% for i in list %}{{ i }}{% endfor %}{{ i }}",
    "{% set a = 1 %}{{ a }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a, b = [1, 2, 3] %}{{ a }}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set a = 1 %}{% for i in list %}{% set a = a + 1 %}{{ a }}{% endfor %}{{ a }}",
    "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}",
    "{% for i in list %}{% if i == 3 %}{% set q = i %}{% endif %}[{{ q }}]{% endfor %}",
    "{% set ns = namespace(a=0) %}{% for i in list %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
    "{% set ns = namespace() %}{% set ns.q = [] %}{% for i in list %}{% set ns.q = ns.q + [i] %}{% endfor %}{{ ns.q }}",
    "{% set ns.a = 1 %}",
    "{% set dict.a = 1 %}",
    "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "{% set ns = namespace(a=1) %}{{ ns }}",
    "{% set true = 1 %}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set loop_messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{{ s }}{{ loop_messages|length }}",
    "{% set a %}x{{ n }}y{% endset %}[{{ a }}]",
    "{% set a | upper %}xy{% endset %}{{ a }}",
    "{% set a | replace('x', 'z') | upper %}xy{% endset %}{{ a }}",
    "{% set a %}{% set b = 1 %}{{ b }}{% endset %}{{ a }}{{ b is defined }}",
    "{% set a %}\n  text\n{% endset %}{{ a }}|",
    "{% filter upper %}a{{ text }}{% endfilter %}",
    "{% filter upper | replace('A', 'x') %}banana{% endfilter %}",
    "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=1, a=2) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(c=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 'a', k=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs|length }}{{ kwargs.x }}{% endmacro %}{{ m(1, 2, 3, x=4) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a=b, b=1) %}{{ a }}{{ b }}{% endmacro %}{{ m() }}{{ m(b=2) }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m() %}{{ text }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}",
    "{% macro m() %}{{ tools }}{% endmacro %}{{ m() }}{% set tools = 1 %}{{ m() }}",
    "{% for i in [1] %}{{ bos_token }}{% endfor %}{% set bos_token = 'x' %}{{ bos_token }}",
    "{{ tools }}{% macro m() %}{{ tools }}{% endmacro %}{{ m() }}{% set tools = 1 %}{{ m() }}",
    "{% for i in [1] %}{{ bos_token }}{% endfor %}{% if yes %}{% set bos_token = 'x' %}{% endif %}{{ bos_token }}",
    "{% macro m(tools) %}{{ tools }}{% endmacro %}{{ m(2) }}{% set tools = 1 %}{{ m(3) }}{{ tools }}",
    "{% for tools in [1] %}{{ tools }}{% endfor %}{% set tools = 2 %}{{ tools }}",
    "{% with tools = 3 %}{{ tools }}{% endwith %}{% set tools = 2 %}{{ tools }}",
    "{% for m in messages %}{% set tools = 1 %}{{ tools }}{% endfor %}{{ tools }}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro m() %} x {% endmacro %}[{{ m()|trim }}]",
    "{% macro m() %}a{% endmacro %}{{ m }}{{ m.name }}{{ m.arguments }}",
    "{% macro m() %}a{% endmacro %}{{ m() + 'b' }}{{ m()|upper }}{{ m() == 'a' }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}",
    "{% macro m() %}{{ caller('x', 2) }}{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% if caller %}y{% endif %}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m(x) %}{% for i in x %}{{ i }}{{ caller() if caller }}{% endfor %}{% endmacro %}{% call m(list) %}.{% endcall %}",
    "{% call 1 %}{% endcall %}",
    "{% macro m(l) %}{% for i in l %}{{ loop.index }}{% endfor %}{% endmacro %}{% for i in [1] %}{{ m(list) }}{{ loop.index }}{% endfor %}",
    "{% macro a() %}A{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% generation %}x{{ n }}{% endgeneration %}",
    "{%- generation -%} x {%- endgeneration -%} y",
    "{%generation%}x{%endgeneration%}",
    "{%  generation  %}\nx\n{%  endgeneration  %}\ny",
    "{%+ generation %}x{%+ endgeneration %}",
    "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ loop.index }}{% endgeneration %}{% endif %}{% endfor %}",
    "{% for i in list %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{{ '{% generation %}' }}{{ \"{%- endgeneration -%}\" }}{{ '[::-1]' }}",
    "{% set s = 'keep {% generation %} and [::-1]' %}{{ s }}",
    "{% generation %}x",
    "{% print n, 'a' %}",
    "{% do list.append(1) %}",
    "{% include 'x' %}",
    "{% include 'x' ignore missing %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% if false %}{% include 'x' %}{% endif %}ok",
    "{% if false %}{{ 1|nofilter }}{% endif %}ok",
    "{% macro m() %}{{ 1|nofilter }}{% endmacro %}ok",
    "{% for i in [] %}{{ 1 is nosuch }}{% endfor %}ok",
    "{{ 1|nofilter if false else 2 }}",
    "{% block a %}x{% endblock %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% trans %}x{% endtrans %}",
    "{% debug %}",
    "{% unknown %}",
    "{% if %}x{% endif %}",
    "{% if true %}x",
    "{% endif %}",
    "{% for %}{% endfor %}",
    "{% for i list %}{% endfor %}",
    "{{ 1",
    "{{ 1 }",
    "{{ }}",
    "{{ 'a }}",
    "{{ 1 2 }}",
    "{{ [1, }}",
    "{{ (1 }}",
    "{{ 1] }}",
    "{{ a b }}",
    "{{ $ }}",
    "{{ 1 + }}",
    "{{ 007 }}",
    "{# open",
    "{% raw %}open",
    "{% set x %}open",
    "{% if true: %}x{% endif %}",
    "}} %} #} { % {",
    "{{ '}}' }}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ {'a': {'b': {}}} }}",
    "{%- for message in messages -%}\n{{ message.role }}\n{%- endfor -%}\n",
    "{{ bos_token }}{% for message in messages %}{{ message['content'] | trim + eos_token }}{% endfor %}",
    "{% set a = dict %}{% set b = a %}{{ a is sameas b }}",
    "{% set x = [1, 2, 3] %}{% set _ = x.append(4) %}{{ x }}",
    "{% set x = {} %}{% set _ = x.update({'a': 1}) %}{{ x }}",
    "{% set it = list|map('string') %}{{ it|list }}{{ it|list }}",
    "{% set it = list|select('odd') %}{% for i in it %}{{ i }}{{ loop.last }}{% endfor %}{{ it|first is defined }}",
    "{% set it = list|reverse %}{{ it|first }}{{ it|list }}",
    "{% set it = list|map('string') %}{{ '1' in it }}{{ it|list }}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.pos }}{% set _ = c.reset() %}{{ c.next() }}",
    "{% set j = joiner('; ') %}{% for i in list %}{{ j() }}{{ i }}{% endfor %}",
    "{% set d = dict(a=1, **{'b': 2}) %}{{ d }}",
    "{% set a = range(*[1, 4]) %}{{ a|list }}",
    "{{ '%s-%s'|format(*['a', 'b']) }}",
    "{{ text.replace(*['Hello', 'Hi']) }}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(**{'a': 1, 'b': 2}) }}{{ m(1, *[2]) }}{{ m(1, a=2) }}",
    "{% for row in [1, 2, 3, 4, 5]|batch(2) %}{{ row }}{{ loop.last }}{% endfor %}",
    "{% for g in people|groupby('age') %}{{ g.grouper }}:{% for p in g.list %}{{ p.name }}{% endfor %};{% endfor %}",
    "{% for age, ps in people|groupby('age') %}{{ age }}{{ ps|length }}{% endfor %}",
    "{% if 'a' in dict and dict['a'] is iterable and dict['a'] is not string %}ok{% endif %}",
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system') }}{% endif %}",
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 1) %}{{ raise_exception('order') }}{% endif %}{{ m.role }}{% endfor %}",
    "{% if tools is not none and tools %}t{% else %}no{% endif %}",
    "{% if tools is defined and tools is not none %}t{% endif %}{% if documents %}d{% endif %}x",
    "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}",
    "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}old{% endif %}",
    "{% set content = messages[1].content %}{% if content is string %}{{ content|trim }}{% else %}{% for c in content %}{{ c.text }}{% endfor %}{% endif %}",
    "{{ messages[1]['content'].strip() + '\\n' }}|",
    "{% set role_indicators = {'user': '<|user|>\\n', 'assistant': '<|assistant|>\\n'} %}{% for m in messages[1:] %}{{ role_indicators[m['role']] }}{% endfor %}",
    "{% for m in messages %}{% if loop.first and m.role == 'system' %}S{% continue %}{% endif %}{% if loop.last %}L{% endif %}{{ m.role[0] }}{% endfor %}",
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}",
    "{% set ns = namespace(multi=true, idx=messages|length - 1) %}{% for message in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{% if ns.multi and message.role == 'user' and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}{% set ns.multi = false %}{% set ns.idx = index %}{% endif %}{% endfor %}{{ ns.idx }}",
    "{%- macro render(value, depth=0) -%}{%- if value is mapping -%}{ {%- for k, v in value|dictsort -%}{{ k }}:{{ render(v, depth + 1) }}{{ ',' if not loop.last }}{%- endfor -%} }{%- elif value is string -%}\"{{ value }}\"{%- elif value is iterable -%}[{%- for v in value -%}{{ render(v, depth + 1) }}{{ ',' if not loop.last }}{%- endfor -%}]{%- else -%}{{ value }}{%- endif -%}{%- endmacro -%}{{ render(tool) }}",
    "{{ tool.function | tojson(indent=4) | indent(2) }}",
    "{{ 'a' -}}\n\n  b\n{{- 'c' }}",
    "  {%- set a = 1 %}\n  {{ a }}\n",
    "line {{ n }} \n\n{% set q = 1 %}\n\nend\n\n",
    "{{n}}{{-n-}}{{ n}}",
    "{% set x=1 -%}\n\n y",
    "{% if 1 -%}\n x\n{%- endif %}\n\nz",
    "{%if 1%}x{%endif%}",
    "{{ 'é' }}é{# é #}",
    "{{ \"a\" 'b' }}",
    "{{ n\n+\n1 }}",
    "{% set\n a\n =\n 1 %}{{ a }}",
    "{{ namespace }}",
    "{{ range(2) }}{{ range(0, 4, 2) }}",
    "{% set a = [] %}{% for i in [1, 2] %}{% set a = a + [i] %}{% endfor %}{{ a }}",
    "{{ 1 if 0 }}|{{ (1 if 0) or 'z' }}",
    "{% if undefined_name.attr %}x{% endif %}",
    "{% if undefined_name is defined and undefined_name.attr %}x{% endif %}ok",
    "{% for i in range(3) %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in [1,2] %}{% for j in [1,2] %}{{ loop.parent }}{% endfor %}{% endfor %}",
    "{{ loop.index if false }}",
    "{% for i in [[1, 2], [3]] recursive %}{% if i is iterable %}[{{ loop(i) }}]{% else %}{{ i }}{% endif %}{% endfor %}",
    "{{ messages }}",
    "{{ tool }}",
    "{{ [n, x, yes, nothing, text[:3], list, dict.a] }}",
    "{{ dict.items() }}{{ dict.keys() }}",
    "{% for m in messages %}{{ m.content if m.content is string else m.content|tojson }}{% endfor %}",
    "{% set x = namespace(v='') %}{% for m in messages %}{% set x.v = x.v ~ m.role[0] %}{% endfor %}{{ x.v }}",
    "{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}[{{ system }}]",
]

# What renders in transformers and is refused here: the project says so instead of
# rendering otherwise.
REFUSED = [
    "{{ " + e + " }}"
    for e in [
        "'abc'.format",
        "'x'.encode()",
        "'ß'.capitalize()",
        "'ǆ'.title()",
        "'٣'|int",
        "2 ** 200",
        "-3 ** n",
        "(-2) ** list[2]",
        "170141183460469231731687303715884105727 + 1",
        "'a b'|wordwrap(1)",
        "'<b>x</b>'|striptags",
        "list|pprint",
        "list|random",
        "list|map('string')",
        "list|reverse",
        "range(3)|map('string')",
        "dict.items",
        "dict|attr('items')",
        "text.upper",
        "text|attr('upper')",
        "joiner",
        "lipsum()",
        "self",
        "n.bit_length()",
    ]
] + [
    "{% block a %}x{% endblock %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{{ namespace }}",
    "{% macro m() %}{{ tools }}{% endmacro %}{{ m() }}{% set tools = 1 %}{{ m() }}",
    "{% for i in [1] %}{{ bos_token }}{% endfor %}{% set bos_token = 'x' %}{{ bos_token }}",
]

CONVERSATIONS = [
    [{"role": "user", "content": "What is 1+1?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  Why?\n"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."},
        {"role": "user", "content": "And 'quotes' \"too\", <b>é</b>?"},
    ],
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def strftime_now(format):
    return TODAY.strftime(format)


def render(source, names):
    try:
        template = chat_template_utils._compile_jinja_template(source)
        template.environment.globals["strftime_now"] = strftime_now
        # `indent` of a list would change it.
        return {"text": template.render(**copy.deepcopy(names))}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}".replace(str(HERE), "")[:200]}


def main():
    snippets, seen = [], set()
    sources = ["{{ " + line + " }}" for line in joined(EXPRESSIONS)] + STATEMENTS
    for source in sources:
        if source in seen:
            continue
        seen.add(source)
        result = render(source, VARS)
        if source in REFUSED:
            if "error" in result:
                sys.exit(f"an error anyhow: {source}")
            result = {"refused": True}
        elif "at 0x" in result.get("text", ""):
            sys.exit(f"an address, which differs from run to run: {source}")
        snippets.append({"template": source, **result})
    if missing := set(REFUSED) - seen:
        sys.exit(f"not among the snippets: {missing}")
    templates = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        for messages in CONVERSATIONS:
            names = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True, **TOKENS}
            templates.append({"template": path.name, "messages": messages, **render(path.read_bytes().decode(), names)})
    fixture = {
        "made_with": {"jinja2": jinja2.__version__, "transformers": transformers.__version__},
        "vars": VARS,
        "tokens": TOKENS,
        "snippets": snippets,
        "templates": templates,
    }
    path = FIXTURES / "templates.json"
    path.write_text(json.dumps(fixture, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")
    errors = sum("error" in s for s in snippets)
    print(f"{len(snippets)} snippets, {errors} errors, {len(REFUSED)} refused, {len(templates)} conversations")


def joined(text):
    """Lines of a block; one that ends in a backslash goes on in the next."""
    lines, start = [], ""
    for line in text.strip("\n").split("\n"):
        start += line
        if line.endswith("\\"):
            start += "\n"
            continue
        lines.append(start)
        start = ""
    return lines


if __name__ == "__main__":
    main()
