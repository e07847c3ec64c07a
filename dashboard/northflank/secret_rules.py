"""Tables of the forms in which texts contain secrets: prefixes of tokens, names, and rules. Pure.

Every repetition is possessive, is bounded, stops where the next one starts, or is tried once a
word: texts come from outside, and time has to be linear in their length.
"""

import re

# How the tokens of providers start. Behind it are a capital, a digit or twenty letters.
PREFIXES = r"""
    (?=[0-9a-f]{32}-us\d) 1//0 (?:A3T|ABIA|ACCA|AKIA|ASIA|LTAI)(?=[^\W_]{12}) AGE-SECRET-KEY- AIza
    AKCp api/webhooks/ (?:api|mob|sdk)-[0-9a-f]{8}-[0-9a-f]{4}- AQVN ATATT ATBB (?:bot)?\d{6,12}:AA
    (?:bkua|gsk|hf|nf[cop]|npm|ntn|phx|pnu|r8|rnd|sbp|sgp|sq[apu]|tfp)_(?=[^\W_]{16}) CCIPAT_ CFPAT-
    dapi(?=[0-9a-f]{16}) dckr_[op]at_ do[opr]_v1_ dp\.[a-z]{2,5}\. dt0c01\. duffel_(?:live|test)_
    EAA(?=[^\W_]{40}) eyJ(?=[\w-]{8,500}+(?:\.[\w-]*+){2}) EZ[AT]K figd_ fm[12]_ fo1_ gh[opsur]_
    github_pat_ gl(?:agent|cbt|dt|ft|imt|oas|pat|ptt|rt|soat)- gl(?:c|sa)_ GOCSPX- HRKU- hv[bsr]\.
    hooks\.(?:slack|zapier)\.com/ key-(?=[0-9a-f]{32}) lin_(?:api|oauth)_ LS0tLS1CRUdJTi(?!BDRVJU)
    mdb_sa_sk_ NR(?:AK|II|JS)- oauth:(?=\w{30}) ops_eyJ oy2(?=\w{43}) pat\w{14}\.(?=\w{32}) PMAK-
    (?:pplx|pul|xai)-(?=[^\W_]{16}) [prs]k_(?:live|test)_ pscale_[a-z]{2,5}_ pypi- rfd_ rubygems_
    re_(?=\w{8}_\w{16}) sb_secret_ secret_(?=[^\W_]{40}) SG\.(?=[\w-]{16}) shp(?:at|ca|pa|ss)_
    sk-(?=[\w-]{20}) sk\.eyJ SK(?=[0-9a-f]{32}) sntry[su]_ sq0(?:atp|csp)- SWM(?:KEY|TKN)-1- tskey-
    v1\.0-[0-9a-f]{24}- vercel_blob_ webhook\.office\.com/[\w/-]+@ whsec_ \w{14}\.atlasv1\. xapp-
    \w{3}\dQ~ xkeysib- xox[a-z]- ya29\.
"""

# How a secret is written. Within a JSON string its quotes have backslashes.
_QUOTE = r"""(?:\\*+["'`])"""
_QUOTED = "|".join(rf"{q}(?:[^{q}\\\n]|\\.)*+{q}|\\*+{q}[^{q}\n]*+{q}" for q in "\"'`")
_QUOTED = f"(?:b?(?:{_QUOTED}))"
_QUOTE_END = r"(?:[,}\]>:\s]|\Z)"  # what follows a closing quote
_UNQUOTED = rf"""(?:[^\s\\"'`,]|{_QUOTE}(?!{_QUOTE_END})|\\++(?!["'`])|,(?!{_QUOTE}))"""
# A quote that nothing closing follows is part of the secret; a comma before white space goes too.
# `[` opens a list: all its texts go. The text of a block in YAML is on the next line.
_OPENING = r"(?P<list>[\[(]\s*+)?+<*+(?:[!&]\w++\s++)?+(?:[|>][+-]?\s++|string\(\d++\)\s++)?+"
_WORD = f"(?:{_QUOTED}|{_UNQUOTED}++)"
_QUOTED_LIST = rf"{_QUOTED}(?(list)(?:\s*+,\s*+{_QUOTED})*+)"
_CALL = r"\w[\w.]*+\([^()\n]*+\)"
_VALUE = rf"(?:{_CALL}|{_QUOTED_LIST}(?:,(?=\s)|(?=[,;}}\])>&])|{_UNQUOTED}*+)|{_UNQUOTED}++)"
# The scheme before a secret, perhaps behind a quote that nothing closes.
_SCHEME = rf"(?:(?:(?!{_QUOTED})b?{_QUOTE})?(?:basic|bearer|digest|token)\s++)?+"
# No secrets: nothing, masks, places of values, objects, and the first words of a message.
_NONE = rf"""(?: (?:{_QUOTE}(?=[^\s"'`]*+["'`]))?+ (?:
        (?:access|permission)\s+denied | cannot | changed | created | denied | disabled | empty
        | enabled | expired | failed | false | forbidden | found | has | incorrect | invalid | is
        | loaded | missing | must | nil | none | not? | null | off | ok | on | optional | refreshed
        | rejected | required | revoked | rotated | should | too | true | unauthorized | undefined
        | (?:un)?set | updated | valid | was | wrong | yes | \*{{3,}} | x{{3,}} | [?] | %s | :\w++
        | \$\d++ | (?-i:\$[A-Z_][A-Z_\d]*+) | \$\{{[^{{}}\s]*+\}}
        | [<(\[]?(?:redacted|filtered|masked|hidden|sensitive[ ]value)[>)\]]?
    ) [.:!]*+ (?![^\s,;&}}\])"'`\\]) | {_QUOTE}{_QUOTE}(?:[\s,;&}}\])]|\Z) | {_QUOTE}?+\{{\{{
    | &(?:[\w.-]*+=|\s|\Z) | -\}} | (?:await[ ])?\w[\w.]*+\([^()'"\n]*+\)(?![ ]?["\w])
    | \[?{_QUOTE}(?:can't|is|must|please|should|the|this|your)[ ]
    | \{{\s*+(?:{_QUOTE}[\w.-]*+{_QUOTE}\s*+:|\w++:\s) )"""

# Names of secrets. A key is one if it is of these:
_KEYS = """
    access account admin aes algolia api app application auth aws cipher client consumer crypt
    cryption data database datadog db deploy fernet function functions google hmac integration jwt
    licence license mailgun maps master openai private pusher recovery root secret sendgrid server
    service session shared sign signing storage stripe subscription unseal webhook write
"""
_KEY = "|".join(f"(?<={of}key)|(?<={of}[ _.-]key)" for of in _KEYS.split())
_KEY = rf"(?:key(?:{_KEY})(?!store|[_-]?id\b))"
_PASSWORDS = r"(?:passw(?:or)?d|pass(?:phrase|code)|(?<!old)pwd(?!\W{1,2}/))"
# After some endings of a name no secret follows: `token_type=bearer`, `token.go:12`.
_NAME = rf"""(?:(?: {_PASSWORDS} | {_KEY} | (?<!lib)(?<!pull)secret | \bcreds | \bsig\b | signature
        | token(?!iz|s\w{{0,20}}\W{{1,4}}\d[\d.]*+(?!\w)) | credential(?!s?(?:_?id\b|\W{{1,4}}[/~]))
        | (?<=docker)configjson | (?<=connect\.)sid | \bsessionid(?=\W{{1,4}}\w{{20}})
        | (?:(?<=j)|(?<=php)|(?<=asp))sess(?:ion)?id
        | (?:\b|(?<=_))(?:pass(?!\W{{1,4}}\d++\b)|pat|pw)(?![\w.-])
        | (?<=[_"'])auth(?!\w|\W{{1,4}}(?:basic|digest|ldap|login|oauth2?|oidc|plain|saml)\b)
    ) (?! [\w.-]{{0,20}}? (?:
        type | name | file | path | dir | url | uri | endpoint | policy | alg(?:orithm)? | method
        | version | count | length | size | limit | ttl | field | ref | arn | reset | manager
        | provider | issuer | rotation | header | hashers? | ya?ml | py | rb | [jt]s | go
        | (?:changed|created|expir|per|updated)\w{{0,9}}
    ) s?(?![\w-]) | \w{{0,30}}+[.-][\w.-]{{0,30}}+:\d{{1,5}}(?![\w-]) )
)"""
_NAME_PARTS = "pass pw secret token cred sig key auth _pat pat: pat= sessionid sessid .sid configj"

# How a value follows its name.
_NAME_END = r"""(?:\\*+["'`]?\]?|%5D)"""
_SETS = r"(?:==++[^\S\n]*+(?=[\"'])|[?|+:]?=(?!=)>?+[^\S\n]*+)"
_EQUALS = rf"{_NAME_END}\s*+(?:{_SETS}|:[^\S\n]*+)(?!{_NONE})"
_FIELD = rf"(?:{_QUOTE}?\w{{1,20}}{_QUOTE}?\s?[:=]\s?[^\s,{{}}]{{1,40}}[\s,]++)"
_VALUE_FIELD = rf"""(?:
    {_NAME_END}\s*+[:=]?\s*+\{{[^{{}}]{{0,200}}? | {_QUOTE}?+[\s,;]++{_FIELD}{{0,3}}
    ){_QUOTE}?\bvalue{_QUOTE}?\s*+[:=]\s*+(?!{_NONE})"""

_BLOCK = "[A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?[ ]?-----?"
KEY_BEGIN = f"-----?[ ]?BEGIN[ ]{_BLOCK}|Private-Lines:[ ](?=[0-9])"
KEY_END = f"-----?[ ]?END[ ]{_BLOCK}|Private-MAC:[ ][0-9a-f]+"
_WEB_KEY = rf"(?P<kept>(?<!\\){_QUOTE}(?:[dpqk]|d[pq]|qi){_QUOTE}\s*+:\s*+)"  # private fields

# Name, keywords, pattern. Without a keyword, in lower case, a text has no secret of this form. Of a
# match the group `kept` stays. The last rule is for errors only, the two before it for logs only.
_RULES = (
    ("private key", "private", rf"(?P<kept>)(?:{KEY_BEGIN})(?s:.*?(?:{KEY_END})|.*)"),
    ("token", "", rf"""(?P<kept>)(?<![A-Za-z0-9])(?=[\w.:~+/=-]{{16}})
        (?-i:(?:{"|".join(PREFIXES.split())})(?=[\w.+/=-]{{0,15}}[A-Z0-9]|[a-z]{{20}}))
        [\w.~+/=-]{{10,}}+"""),
    # Cookies have no end but the line's: nobody knows which of them is the secret one.
    ("cookies", "cookie", rf"""(?P<kept>cookie{_EQUALS}{_OPENING})
        (?: {_QUOTED_LIST}(?={_QUOTE_END}) | [^\n]++ )"""),
    # Any word may name the scheme. Parameters, of which one is the secret, end with the line.
    ("authorization", "authorization", rf"""(?P<kept>authorization{_EQUALS}{_OPENING}) (?:
        {_QUOTED_LIST}(?={_QUOTE_END}) | (?:b(?=\\*+["'`]))?+ [^\w\s]*+
          (?: (?:digest|oauth|hawk|mac|aws4[\w-]*+)[ \t]++[^\n]++
            | (?:[a-z][\w.-]*+[ \t]++(?=\S))?+ {_VALUE} ) )"""),
    # After some names also `: `, which is common in messages: "invalid token: expired".
    ("name", _NAME_PARTS, rf"""
        (?-i:(?=[Pp][AaWw]|[Ss][EeIi]|[Tt][Oo]|[Kk][Ee]|[Cc][RrOo]|[Aa][Uu])) (?P<kept>
        (?: (?: (?<=[_-])(?:token|secret) | (?-i:TOKEN|SECRET) | {_KEY} | {_PASSWORDS} ) {_EQUALS}
            | {_NAME}[\w.-]{{0,30}}+
              (?: {_NAME_END} (?: \s*+{_SETS} | (?<=["'`])\s*+:\s*+ | (?<!:secret):(?![\s:]|\d++:)
                  | :\s++(?=b?{_QUOTE}) ) (?!{_NONE}) | {_VALUE_FIELD} )
        ) {_OPENING} ) {_SCHEME} {_VALUE}"""),
    ("pair", "(\" (' [\" [' (\\ [\\", rf"""(?P<kept>(?:(?:(?<=[\w\[(])|(?<=,[ ]))\(|(\[)){_QUOTE}
        [\w.-]{{0,60}}?(?:{_NAME}|authorization)[\w.-]{{0,30}}+{_QUOTE}\s*+,\s*+)
        {_QUOTED} (?(2)(?=\s*+\])|(?=\s*+[,)]))"""),
    ("XML", "</ ]]>", rf"""(?P<kept>
        <(?:[\w.:-]{{0,60}}?|[\w.:-]++\s[^<>]{{0,200}}?(?:name|key)=["'][\w.:-]{{0,60}}?){_NAME}
        [^<>]*+(?<!/)>\s*+(?:<value>|<!\[CDATA\[)?) [^<>\s][^<>]*+ (?=</|>)"""),
    ("SQL", "password identified", rf"""(?P<kept>\bpassword(?:\s++|\s*+\(\s*+)(?=')
        | \bidentified\s++(?:with\s++\S++\s++)?(?:by|as)\s++(?:password\s++)?(?=')
        | (?-i:\bIDENTIFIED[ ]BY[ ])) (?:{_QUOTED}|[^\s;'"]++)"""),
    ("JSON Web Key", "kty", f"{_WEB_KEY}{_QUOTED}"),
    ("line of it", '"d" "p" "q" "dp" "dq" "qi" "k"', rf"{_WEB_KEY}{_QUOTE}[\w-]{{40,}}+{_QUOTE}"),
    ("query", "auth= code= key=", r"""(?P<kept>[?&;](?:auth|code|key(?==[\w-]{20}))=)
        (?!(?:\d{1,5}|(?-i:[A-Z]{2,3}))(?:[\s&"']|\Z)) [^\s&"'<>]++"""),
    ("bearer", "bearer", rf"""(?P<kept>bearer\s++)
        (?!(?:tokens?|auth(?:entication|orization)?)(?![\w|-]|\.\w)|[a-z_]++=[^=\s])
        (?:{_QUOTED}(?={_QUOTE_END})|{_UNQUOTED}++)"""),
    # A password, token or key in a sentence, if it has a digit: `with password x7`, `API Key: x7`.
    ("sentence", "password passphrase token key pass", rf"""(?-i:(?=[PpTtKkRr])) (?P<kept>
        (?:passphrase|password|token|{_KEY}(?:[ ]\d)?|requirepass) (?: :?[ ]++
            | [ ]++(?:[\w@.'-]{{1,40}}+[ ]){{0,5}}?(?:is:?|[\w@.'-]{{1,40}}+:)[ ]++ ))
        (?!/|[\w-]++=[^=\s])(?=\S*?\d)(?=\S*?[a-z]) [^\s:@()]{{8,}}+(?!\S)"""),
    # `--password pw`, but not `--password TEXT  the password`
    ("option", "-- -u -pass -token -secret", rf"""(?P<kept>(?<![^\s"'\[]) (?:
            --?[\w.-]{{0,40}}? (?:{_NAME}|cookie) (?:\s++|{_QUOTE},\s*+{_QUOTE})
            | (?:-u|--user|--auth) \s++ ["']?+ [\w.@-]{{1,64}}: (?!\d++(?!\S)|//) ))
        (?!-|id=|type=|\w++(?:\s\s|\])|(?-i:[A-Z_]*(?:KEY|PASSWORD|SECRET|TOKEN)\b))
        {_WORD}"""),
    ("command", "-p -a -w -n pass:", rf"""(?P<kept>pass(?:in|out)?[ ]pass: | \b
        (?: (?:mysql|mariadb)\w*+\b[^\n|;&]{{0,200}}?[ ](?-i:-p)
          | (?:(?:ldap|mongo)\w*+|redis-cli|ssh(?:pass|-keygen)|(?:az|docker|helm|oc)[ ]login)\b
            [^\n|;&]{{0,200}}?[ ](?-i:-[pawN])[ ] ) (?![\s-]|\d++(?!\S))) {_WORD}"""),
    ("CI", "::add-mask:: issecret=true] [set-secret] ::set-output", r"""(?P<kept>
        ::add-mask::|issecret=true\]|\[set-secret\]|::set-output[ ]name=[\w-]*+::) \S[^\n]*+"""),
    # Where a line starts with the name, or a variable's name is there. "PASS: 12" is of a test.
    ("entry", _NAME_PARTS, rf"""(?P<kept>
        (?: (?m:^) (?:[\[(]?\d[\d:.,TZ/+-]*+[\])]?[ \t]++){{0,2}}+ (?:
            [\[(]?(?:trace|debug|info|notice|warn(?:ing)?|error|fatal)[\])]?:?[ \t]++)?+ [ \t>*+-]*+
          | (?<![\w.$-]) (?: (?=[a-z\d]*+_) | (?-i:(?=[A-Z\d_]++:)) ) )
        (?=[\w.-]{{1,80}}+:[ \t]) [\w.-]{{0,60}}? (?!\bpass){_NAME}
        (?:[_-](?:base|data|hash|key|value|\d++)){{0,3}}+s?:[ \t]++(?!{_NONE}|[a-z]++[ ][a-z]++[ ])
        {_OPENING} ) {_SCHEME} {_VALUE}"""),
    # Only before a server: within a line of JSON, an `@` follows many a colon.
    ("login", "@", r"""(?<![\w.%+-]) (?P<kept>(?!npm:)[\w.%+-]{1,64}:|(?<=thin:)\w{1,64}/)
        (?!//|\d{1,5}/) [^\s:@,"'`{}[\]]{1,256}
        (?=@ (?:\w{2,4}\( | localhost\b | (?://)?[\w.-]{1,255}(?::\d{2,5}\b|/)) )"""),
    # user:password@, but neither a time nor a package with its version or digest.
    ("login", "@", r"""(?<!\S) (?!(?:\d{4}-\d\d-\d\dT)?\d\d?:\d\d(?!\w)) (?P<kept>[^\s:@]*+:) \S+
        (?=@ (?!sha\d++:)
          (?! [v^~<>=]*+\d++(?:\.\d++){0,2}+(?:[-+][\w.+-]*+)? [.,;:)\]}>"'`]*+ (?:\s|\Z) ) )"""),
)  # fmt: skip

_ALL = [(words.split() or [""], re.compile(f"(?ix){form}")) for _name, words, form in _RULES]
LOG_RULES, ERROR_RULES = _ALL[:-1], [*_ALL[:-3], _ALL[-1]]
